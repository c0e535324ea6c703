"""The order of the middlewares."""

import pytest

from service.http.middleware import stack


def test_the_stack_is_in_one_place_and_in_this_order():
    """Route and id come first, for all that follow; refusals come before the body is read."""
    names = [getattr(middleware, "__name__", "") for middleware in stack.STACK]
    expected = [
        "route",
        "request_ids",
        "trace",
        "observation",
        "errors",
        "known_host",
        "preflight",
        "share",
        "own_pages",
        "authentication",
        "rate",
        "deadline",
        "uploads",
        "validation_middleware",
    ]
    assert expected == names


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/nothing"), ("PUT", "/generate"), ("GET", "/docs"), ("GET", "/metrics")],
)
async def test_every_answer_has_an_id_and_hides_what_serves_it(client, method, path):
    """Errors and pages are no exceptions."""
    async with client.request(method, path) as answer:
        assert (
            answer.headers["Server"],
            answer.headers["X-Content-Type-Options"],
        ) == ("sd-api", "nosniff")
        assert answer.headers["X-Request-ID"]
