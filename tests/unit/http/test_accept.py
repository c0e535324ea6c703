"""Content negotiation."""

import pytest
from aiohttp.test_utils import make_mocked_request

from service.errors import NotAcceptable
from service.http.accept import preferred

OFFERED = ("application/json", "image/png", "image/jpeg")


def choose(accept: str | None) -> str:
    headers = {} if accept is None else {"Accept": accept}
    return preferred(make_mocked_request("POST", "/generate", headers=headers), OFFERED)


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, "application/json"),
        ("", "application/json"),
        (" ,, ", "application/json"),
        ("*/*", "application/json"),
        ("image/png", "image/png"),
        ("IMAGE/PNG", "image/png"),
        ("image/*", "image/png"),
        ("application/json;q=0.5, image/png", "image/png"),
        ("image/png;q=0.5, application/json", "application/json"),
        ("image/png, application/json", "application/json"),
        ("text/html, application/xhtml+xml, */*;q=0.8", "application/json"),
        ("application/json;q=0, */*", "image/png"),
        ("image/png; q=often", "image/png"),
        ("image/png; q=nan", "image/png"),
        ("image/png; q=\uff10.\uff11, image/jpeg;q=0.9", "image/png"),
        ("image/png; q=-1, image/jpeg;q=0.9", "image/png"),
        ("image/png; q=1e999, image/jpeg", "image/png"),
        ("image/jpg", "image/jpeg"),
        ("Image/JPG", "image/jpeg"),
        ("image/pjpeg", "image/jpeg"),
        ("image/x-png", "image/png"),
        ("image/jpg;q=0, image/*", "image/png"),
        ("image/png;q=0, image/*", "image/jpeg"),
        ("image/jpg;q=0, image/jpeg;q=0.5", "image/jpeg"),
        ("application/*", "application/json"),
        ("*", "application/json"),
        ("text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2", "image/jpeg"),
        (",, image/png ,", "image/png"),
        (";;q=, image/png", "image/png"),
        ("image/png;q=0.1;level=1, */*;q=0", "image/png"),
    ],
)
def test_the_type_that_the_client_likes_best_is_chosen(accept, expected):
    """Quality decides, then how exact the range is, then our own order."""
    assert expected == choose(accept)


@pytest.mark.parametrize(
    "accept", ["text/html", "image/webp", "*/*;q=0", "nonsense", "image/", "/", "jpg", "*;q=0"]
)
def test_a_client_that_takes_none_of_our_types_is_told_which_there_are(accept):
    """Nothing we have is acceptable: 406."""
    with pytest.raises(NotAcceptable, match="application/json or image/png or image/jpeg"):
        choose(accept)
