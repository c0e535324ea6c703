"""Headers of every answer: its id, and limits for browsers and caches."""

import uuid
from collections.abc import Mapping
from typing import Final

from aiohttp import hdrs, web

from service.http.middleware.request_ids import HEADER
from service.http.state import REQUEST_ID

SECURITY: Final[Mapping[str, str]] = {
    # An answer that is opened as a page runs nothing, and no other page can frame it.
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    # No <img> of another site shows images of ours; listed origins use CORS instead.
    "Cross-Origin-Resource-Policy": "same-origin",
    # Images and errors are for the caller, not for a shared cache.
    hdrs.CACHE_CONTROL: "no-store",
}


def add_common(request: web.BaseRequest, answer: web.StreamResponse) -> None:
    """Add the headers that all answers have; those for browsers and caches unless already set."""
    answer.headers[HEADER] = request.get(REQUEST_ID) or uuid.uuid4().hex
    answer.headers[hdrs.SERVER] = "sd-api"
    for name, value in SECURITY.items():
        answer.headers.setdefault(name, value)
