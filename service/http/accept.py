"""Content negotiation: which of our media types a client likes best (RFC 9110, 12.5.1)."""

from collections.abc import Mapping
from typing import Final

from aiohttp import hdrs, web

from service.errors import NotAcceptable
from service.http.values import number

FORMATS: Final[Mapping[str, str]] = {"jpg": "jpeg", "pjpeg": "jpeg", "x-png": "png"}
"""Image formats by the names that clients use besides those of the registry."""


def image_format(name: str) -> str:
    """Return the registered name of an image format, in small letters; unknown ones stay."""
    return FORMATS.get(name.lower(), name.lower())


def preferred(request: web.Request, offered: tuple[str, ...]) -> str:
    """Return the best of ``offered``, the first one where the client does not care.

    Raises:
        NotAcceptable: the client takes none of them.

    """
    header = ",".join(request.headers.getall(hdrs.ACCEPT, []))
    ranges: dict[str, float] = {}
    for media_range, quality in (_range(part) for part in header.split(",") if part.strip()):
        ranges[media_range] = max(quality, ranges.get(media_range, 0.0))
    if not ranges:  # An empty part of a list is none (RFC 9110, 5.6.1).
        return offered[0]
    best = max(offered, key=lambda media_type: _quality(media_type, ranges))
    if _quality(best, ranges) <= 0:
        raise NotAcceptable(f"This answer comes as {' or '.join(offered)}.")
    return best


def answered_at_once(request: web.Request) -> bool:
    """Return whether the client would rather not wait for its images (RFC 7240)."""
    given = ",".join(request.headers.getall("Prefer", []))
    return "respond-async" in {part.split(";")[0].strip().lower() for part in given.split(",")}


def _range(part: str) -> tuple[str, float]:
    media_range, *parameters = (piece.strip().lower() for piece in part.split(";"))
    quality = 1.0
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            quality = _weight(value.strip())
    whole, slash, name = media_range.partition("/")
    if whole == "image":
        name = image_format(name)
    # Java's own client writes * for */*.
    return ("*/*" if media_range == "*" else f"{whole}{slash}{name}"), quality


def _weight(text: str) -> float:
    """Return a quality; what is none from 0 to 1 is as if it were left out."""
    quality = number(text)
    return quality if 0 <= quality <= 1 else 1.0


def _quality(media_type: str, ranges: dict[str, float]) -> float:
    """Return what the most specific range that covers ``media_type`` says."""
    whole_type = f"{media_type.partition('/')[0]}/*"
    for media_range in (media_type, whole_type, "*/*"):
        if media_range in ranges:
            return ranges[media_range]
    return 0.0
