"""By which name the service was called: a page must not reach it under its own.

A page from evil.example can let its name point to 127.0.0.1 (DNS rebinding); for the browser
the service is then the page's own origin, and CORS does not apply. But the request still says
``Host: evil.example``.
"""

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from service.addresses import host_name, is_loopback
from service.errors import Forbidden
from service.http.keys import CONFIG, KEYRING


@web.middleware
async def known_host(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse other names than our own, where the name is what protects the service.

    That is without keys on a loopback address, and wherever ALLOWED_HOSTS is set. A request
    without the header is no browser's.

    Raises:
        Forbidden: with the setting that allows it.

    """
    config = request.app[CONFIG]
    protected = is_loopback(config.api_host) and not request.app[KEYRING]
    if config.allowed_hosts or protected:
        for value in request.headers.getall(hdrs.HOST, []):
            name = host_name(value.strip().lower()).rstrip(".")
            if name not in config.allowed_hosts and not is_loopback(name):
                raise Forbidden("It is not called by this name; see ALLOWED_HOSTS.")
    return await handler(request)
