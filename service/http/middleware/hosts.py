"""Names that the service is called by: a page must not reach it under a name of its own.

A page from evil.example can let its name point to 127.0.0.1 (DNS rebinding); for the browser
the service is then the page's own origin, and CORS does not apply. But the request still says
``Host: evil.example``.
"""

import re
from typing import Final

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from service.config.addresses import host_name, is_loopback
from service.errors import Forbidden, MalformedRequest
from service.http.state import CONFIG, KEYRING

WHOLE_ADDRESS: Final = re.compile(r"https?://([^/?#]*)", re.IGNORECASE)
"""A request target as proxies get it; its host beats the header (RFC 9112, 3.2.2)."""


@web.middleware
async def known_host(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse other names than our own, where the name is what protects the service.

    That is without keys on a loopback address, and wherever ALLOWED_HOSTS is set. A request
    without the header is HTTP/1.0, and no browser's.

    Raises:
        MalformedRequest: it names no host, or two.
        Forbidden: with the setting that allows it.

    """
    config = request.app[CONFIG]
    names = _names(request)
    protected = is_loopback(config.api_host) and not request.app[KEYRING]
    if config.allowed_hosts or protected:
        for name in names:
            if name not in config.allowed_hosts and not is_loopback(name):
                raise Forbidden(
                    "The service does not accept this Host name; the operator can add it to "
                    "ALLOWED_HOSTS."
                )
    return await handler(request)


def _names(request: web.Request) -> set[str]:
    """Return the host that a request names; empty for none."""
    given = {value.strip().lower() for value in request.headers.getall(hdrs.HOST, [])}
    target = request.raw_path
    if request.method != hdrs.METH_CONNECT and target != "*" and not target.startswith("/"):
        if not (whole := WHOLE_ADDRESS.match(target)):
            raise MalformedRequest("The address must be a path, or begin with http://.")
        given.add(whole[1].lower())
    try:
        names = {host_name(value) for value in given}
    except ValueError:
        raise MalformedRequest(
            "Host must be one name or address, and a port if wanted: gpu.lan:8000."
        ) from None
    if len(given) > 1:
        raise MalformedRequest("Host must be the host in the address of the request.")
    return names
