"""Which pages of other origins may use the service from a browser (CORS; the Fetch standard).

None, unless CORS_ORIGINS lists them. A page that is not listed can still send what a form can,
but no JSON: that takes a preflight, and everything else is refused with 415.
"""

from typing import Final

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from service.http.keys import CONFIG

METHODS: Final = "GET, HEAD, POST, DELETE"
REQUEST_HEADERS: Final = ", ".join(
    (
        *("Accept", "Authorization", "Content-Type", "Idempotency-Key", "Last-Event-ID"),
        *("Prefer", "X-API-Key", "X-Request-ID", "X-Request-Timeout", "traceparent", "tracestate"),
    )
)
ANSWER_HEADERS: Final = ", ".join(
    (
        *("Idempotent-Replayed", "Location", "Preference-Applied", "Retry-After", "X-Metadata"),
        "X-Request-ID",
        *(
            f"X-RateLimit-{part}-{kind}"
            for kind in ("Requests", "Images")
            for part in ("Limit", "Remaining", "Reset")
        ),
    )
)
MAX_AGE_SECONDS: Final = 600
"""An origin that is taken off the list is off it that much later, in browsers that asked."""

ANY: Final = "*"


@web.middleware
async def preflight(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer a listed origin that asks before it sends; it has no key to show yet."""
    asks = (
        request.method == hdrs.METH_OPTIONS
        and hdrs.ACCESS_CONTROL_REQUEST_METHOD in request.headers
        and allowed(request)
    )
    if not asks:
        return await handler(request)
    return web.Response(
        status=204,
        headers={
            hdrs.ACCESS_CONTROL_ALLOW_METHODS: METHODS,
            hdrs.ACCESS_CONTROL_ALLOW_HEADERS: REQUEST_HEADERS,
            hdrs.ACCESS_CONTROL_MAX_AGE: str(MAX_AGE_SECONDS),
        },
    )


def allowed(request: web.Request) -> str:
    """Return the origin that may read the answer, as the answer says it; empty for none."""
    listed = request.app[CONFIG].cors_origins
    if ANY in listed:
        return ANY
    given = request.headers.getall(hdrs.ORIGIN, [])
    return given[0] if len(given) == 1 and given[0] in listed else ""


def tell(request: web.Request, answer: web.StreamResponse) -> None:
    """Say who may read an answer, errors included; no cookies, so no credentials mode."""
    listed = request.app[CONFIG].cors_origins
    if not listed:
        return
    if ANY not in listed:  # Caches must keep apart what differs by origin.
        vary = answer.headers.get(hdrs.VARY)
        answer.headers[hdrs.VARY] = f"{vary}, {hdrs.ORIGIN}" if vary else hdrs.ORIGIN
    if origin := allowed(request):
        answer.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = origin
        answer.headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = ANSWER_HEADERS
