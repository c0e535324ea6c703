"""The middlewares of every request, from the outside in."""

import warnings
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from aiohttp_apispec import validation_middleware

from service.http.middleware import auth, cors, headers, limits
from service.http.middleware.deadline import deadline
from service.http.middleware.errors import errors
from service.http.middleware.hosts import known_host
from service.http.middleware.observation import observation
from service.http.middleware.request_ids import request_ids
from service.http.middleware.tracing import trace
from service.http.state import ROUTE, ROUTES
from service.http.uploads.parser import BodyParser
from service.http.uploads.sent import uploads

REST: Final = web.RequestKey("rest", dict)
"""Where aiohttp-apispec puts what no ``put_into`` names; nothing here."""


@web.middleware
async def route(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Look up the row of the request, once for all middlewares after it."""
    request[ROUTE] = row = request.app[ROUTES].row(request)
    if row.body_bytes:
        request._client_max_size = row.body_bytes  # noqa: SLF001 - a clone is another request
    return await handler(request)


STACK: Final[tuple[Middleware, ...]] = (
    route,
    request_ids,
    trace,
    observation,
    errors,
    known_host,
    cors.preflight,
    limits.share,
    cors.own_pages,
    auth.authentication,
    limits.rate,
    deadline,
    uploads,
    validation_middleware,
)


def add_to(app: web.Application) -> None:
    """Wrap every route of ``app``."""
    app.middlewares.extend(STACK)
    app.on_response_prepare.append(add_headers)
    with warnings.catch_warnings():
        # The middleware of aiohttp-apispec looks for these two names, which are no AppKeys.
        warnings.simplefilter("ignore", web.NotAppKeyWarning)
        app["_apispec_parser"] = BodyParser()
        app["_apispec_request_data_name"] = REST


async def add_headers(request: web.Request, answer: web.StreamResponse) -> None:
    """Add the headers of every answer that leaves a route, streamed ones included."""
    headers.add_common(request, answer)
    cors.add_headers(request, answer)
    limits.add_headers(request, answer)
