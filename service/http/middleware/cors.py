"""Pages of other origins that may use the service from a browser (CORS; the Fetch standard).

None, unless CORS_ORIGINS lists them. A page that is not listed could still send what takes no
preflight. Where no key stands in its way, the browser's own word on the page does: ``Origin``
and ``Sec-Fetch-Site``, which no page can set.
"""

from typing import Final

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from service.config.addresses import DEFAULT_PORTS, ORIGIN
from service.errors import CrossOrigin
from service.http.state import CONFIG, KEYRING

METHODS: Final = "GET, HEAD, POST, DELETE"
STAINLESS: Final = (
    *("Arch", "Helper-Method", "Lang", "OS", "Package-Version", "Retry-Count", "Runtime"),
    *("Runtime-Version", "Timeout"),
)
"""Ends of the names of headers that OpenAI's package sends with every request, from pages, too."""
REQUEST_HEADERS: Final = ", ".join(
    (
        *("Accept", "Authorization", "Content-Type", "Idempotency-Key", "Last-Event-ID"),
        *("Prefer", "X-API-Key", "X-Request-ID", "X-Request-Timeout", "traceparent", "tracestate"),
        *("OpenAI-Organization", "OpenAI-Project", *(f"X-Stainless-{end}" for end in STAINLESS)),
    )
)
ANSWER_HEADERS: Final = ", ".join(
    (
        *("Idempotent-Replayed", "Location", "Preference-Applied", "Retry-After", "X-Metadata"),
        *("X-Job-Id", "X-Request-ID", "X-Should-Retry"),
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

SITE: Final = "Sec-Fetch-Site"
OWN_SITES: Final = frozenset({"same-origin", "none"})
"""A page of this service, or no page: an address that was typed."""

LISTABLE: Final = (
    "A web page of another origin sent this; list its origin in CORS_ORIGINS to allow it."
)
UNLISTABLE: Final = (
    "A web page sent this without an origin that CORS_ORIGINS could list: `Origin` is null for "
    "pages from a file, in a sandboxed frame or with Referrer-Policy: no-referrer. Serve the page "
    "over http:// or https:// without these, or use API keys."
)

SAFE: Final = frozenset({hdrs.METH_GET, hdrs.METH_HEAD, hdrs.METH_OPTIONS, hdrs.METH_TRACE})
"""Methods that change nothing (RFC 9110, 9.2.1)."""


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


@web.middleware
async def own_pages(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse changes by pages of other origins, where no key is needed.

    Raises:
        CrossOrigin: with the setting that allows it.

    """
    if not request.app[KEYRING] and request.method not in SAFE and _foreign(request):
        raise CrossOrigin(LISTABLE if _listable(request) else UNLISTABLE)
    return await handler(request)


def _foreign(request: web.Request) -> bool:
    """Return whether a browser says that a page which is neither ours nor listed sends this."""
    if allowed(request):
        return False
    sites = request.headers.getall(SITE, [])
    origins = request.headers.getall(hdrs.ORIGIN, [])
    return not (OWN_SITES.issuperset(sites) and all(_ours(request, each) for each in origins))


def _listable(request: web.Request) -> bool:
    """Return whether an entry of CORS_ORIGINS could let the page in."""
    given = request.headers.getall(hdrs.ORIGIN, [])
    return len(given) == 1 and ORIGIN.fullmatch(given[0].lower()) is not None


def _ours(request: web.Request, origin: str) -> bool:
    """Return whether pages of ``origin`` come from here; a proxy in front may speak TLS."""
    if not (match := ORIGIN.fullmatch(origin.lower())):
        return False
    authority = match.string.removeprefix(f"{match[1]}://")
    host = request.headers.get(hdrs.HOST, "").lower()
    port = DEFAULT_PORTS[match[1]]
    return authority.removesuffix(port) == host.removesuffix(port)


def allowed(request: web.Request) -> str:
    """Return the origin that may read the answer, as the answer says it; empty for none."""
    listed = request.app[CONFIG].cors_origins
    if ANY in listed:
        return ANY
    given = request.headers.getall(hdrs.ORIGIN, [])
    return given[0] if len(given) == 1 and given[0] in listed else ""


def add_headers(request: web.Request, answer: web.StreamResponse) -> None:
    """Name the origin that may read an answer, errors included; without cookies."""
    listed = request.app[CONFIG].cors_origins
    if not listed:
        return
    if ANY not in listed:  # Caches must keep apart what differs by origin.
        vary = answer.headers.get(hdrs.VARY)
        answer.headers[hdrs.VARY] = f"{vary}, {hdrs.ORIGIN}" if vary else hdrs.ORIGIN
    if origin := allowed(request):
        answer.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = origin
        answer.headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = ANSWER_HEADERS
