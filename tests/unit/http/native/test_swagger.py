"""GET /docs."""

import re
import subprocess
import sys
from typing import Any

import pytest

from service.http.native import swagger


async def text(client, path: str) -> Any:
    async with client.get(path) as answer:
        assert answer.status == 200
        return await answer.text()


async def test_the_page_needs_nothing_from_elsewhere(client):
    """Everything that it loads is served here, so it works offline."""
    page = await text(client, "/docs")
    for address in re.findall(r'(?:src|href)="([^"]+)"', page):
        assert address.startswith("/docs/")
        async with client.get(address) as answer:
            assert answer.status == 200


async def test_the_policy_allows_our_own_scripts_only(client):
    """No inline script, no other origin, no frame around the page."""
    async with client.get("/docs") as answer:
        policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'; script-src 'self'; style-src 'self';" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert "<script>" not in await text(client, "/docs")


async def test_the_page_shows_our_description_and_no_other(client):
    """An address in the query cannot make it show somebody else's."""
    script = await text(client, "/docs/start.js")
    assert 'url: "/openapi.json"' in script
    assert "queryConfigEnabled: false" in script


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("swagger-ui.css", "text/css"),
        ("swagger-ui-bundle.js", "text/javascript"),
        ("favicon-32x32.png", "image/png"),
    ],
)
async def test_files_have_their_type_and_can_be_cached(client, name, kind):
    """Browsers refuse a style sheet or a script of another type (nosniff)."""
    async with client.get(f"/docs/{name}") as answer:
        assert (200, kind) == (answer.status, answer.content_type)
        etag = answer.headers["ETag"]
    async with client.get(f"/docs/{name}", headers={"If-None-Match": etag}) as answer:
        assert answer.status == 304


@pytest.mark.parametrize(
    "name",
    ["swagger-editor-bundle.js", "oauth2-redirect.html", "..%2fcore.py", "%2e%2e%2f__init__.py"],
)
async def test_nothing_else_of_the_package_is_served(client, name):
    """The folder has 25 MB of editors and maps, and a code folder above it."""
    async with client.get(f"/docs/{name}") as answer:
        assert answer.status == 404


def test_the_package_is_found_without_running_its_code():
    """Only its files are wanted."""
    code = (
        "import sys; from service.http.native import swagger; "
        "assert (swagger.files() / 'swagger-ui.css').is_file(); "
        "assert not any(m.startswith('swagger_ui') for m in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_files_are_a_version_without_known_holes():
    """Before 4.1.3 an address in the query chose the description that is shown."""
    bundle = (swagger.files() / "swagger-ui-bundle.js").read_text(encoding="utf-8")
    (version,) = set(re.findall(r'PACKAGE_VERSION:"([0-9.]+)"', bundle))
    assert tuple(int(part) for part in version.split(".")) >= (5, 24)


@pytest.mark.parametrize("asked", ["bytes=0-9", "bytes=-", "bytes=99999999-", "pages=1-2"])
async def test_files_are_sent_whole(client, asked):
    """A part of a style sheet is of no use, and a wrong range no error."""
    headers = {"Range": asked, "Accept-Encoding": "identity"}
    answer = await client.get("/docs/swagger-ui.css", headers=headers)
    assert answer.status == 200
    assert len(await answer.read()) == int(answer.headers["Content-Length"]) > 10_000
