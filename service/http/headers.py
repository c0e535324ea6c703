"""Headers that keep browsers and caches from doing more with an answer than is meant."""

from collections.abc import Mapping
from typing import Final

from aiohttp import hdrs, web

SECURITY: Final[Mapping[str, str]] = {
    # An answer that is opened as a page runs nothing, and stands in nobody's frame.
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    # No <img> of another site shows pictures of ours; listed origins use CORS instead.
    "Cross-Origin-Resource-Policy": "same-origin",
    # Pictures and errors are for whoever asked, not for a shared cache.
    hdrs.CACHE_CONTROL: "no-store",
}


def secure(answer: web.StreamResponse) -> None:
    """Give an answer these headers, where its handler has not set its own."""
    for name, value in SECURITY.items():
        answer.headers.setdefault(name, value)
