"""Headers that keep browsers and caches from doing more than is meant."""

import pytest

BODY = {"prompt": "a boat", "width": 256, "height": 256, "steps": 1}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/docs"),
        ("GET", "/docs/start.js"),
        ("GET", "/docs/swagger-ui.css"),
        ("GET", "/health"),
        ("GET", "/metrics"),
        ("GET", "/nothing"),
        ("POST", "/generate"),
        ("OPTIONS", "/generate"),
    ],
)
async def test_every_answer_has_them(client, method, path):
    """Pages, images, errors and files."""
    body = BODY if method == "POST" else None
    async with client.request(method, path, json=body) as answer:
        found = answer.headers
        policy = found["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert (
        found["Referrer-Policy"],
        found["X-Content-Type-Options"],
        found["Cross-Origin-Resource-Policy"],
    ) == ("no-referrer", "nosniff", "same-origin")


@pytest.mark.parametrize(
    ("accept", "status"), [("application/json", 200), ("image/png", 200), ("text/html", 406)]
)
async def test_images_and_errors_stay_out_of_caches(client, accept, status):
    """They are for whoever asked."""
    async with client.post("/generate", json=BODY, headers={"Accept": accept}) as answer:
        assert (answer.status, answer.headers["Cache-Control"]) == (status, "no-store")


async def test_the_files_of_the_page_may_be_cached(client):
    """A handler's own header stays."""
    async with client.get("/docs/swagger-ui.css") as answer:
        assert answer.headers["Cache-Control"] == "public, max-age=3600"
