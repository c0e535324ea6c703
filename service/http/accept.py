"""Content negotiation: which of our media types a client likes best (RFC 9110, 12.5.1)."""

import contextlib

from aiohttp import hdrs, web

from service.errors import NotAcceptable


def preferred(request: web.Request, offered: tuple[str, ...]) -> str:
    """Return the best of ``offered``, the first one where the client does not care.

    Raises:
        NotAcceptable: the client takes none of them.

    """
    header = ",".join(request.headers.getall(hdrs.ACCEPT, [])).strip()
    if not header:
        return offered[0]
    ranges = dict(_range(part) for part in header.split(",") if part.strip())
    best = max(offered, key=lambda media_type: _quality(media_type, ranges))
    if _quality(best, ranges) <= 0:
        raise NotAcceptable(f"This answer comes as {' or '.join(offered)}.")
    return best


def preferences(request: web.Request) -> set[str]:
    """Return what the client would like, if it is all the same to us (RFC 7240)."""
    given = ",".join(request.headers.getall("Prefer", []))
    return {part.split(";")[0].strip().lower() for part in given.split(",")}


def answered_at_once(request: web.Request) -> bool:
    """Return whether the client would rather not wait for its pictures."""
    return "respond-async" in preferences(request)


def _range(part: str) -> tuple[str, float]:
    media_range, *parameters = (piece.strip().lower() for piece in part.split(";"))
    quality = 1.0
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            with contextlib.suppress(ValueError):
                quality = float(value)
    return media_range, quality


def _quality(media_type: str, ranges: dict[str, float]) -> float:
    """Return what the most specific range that covers ``media_type`` says."""
    whole_type = f"{media_type.partition('/')[0]}/*"
    for media_range in (media_type, whole_type, "*/*"):
        if media_range in ranges:
            return ranges[media_range]
    return 0.0
