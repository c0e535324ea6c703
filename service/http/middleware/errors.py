"""Errors become answers in the form of their API."""

import structlog
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from service.errors import ServiceError
from service.http.error_answers import error_answer, from_aiohttp
from service.http.state import METRICS, ROUTE

log = structlog.get_logger(__name__)


@web.middleware
async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer with everything that is raised, in the form of the route's API."""
    try:
        return await handler(request)
    except ServiceError as error:
        return _refused(request, error)
    except web.HTTPException as error:
        if error.status < 400:  # noqa: PLR2004 - a redirect is an answer, not an error
            raise
        if isinstance(error, web.HTTPMethodNotAllowed) and request.method == hdrs.METH_OPTIONS:
            allow = ", ".join(sorted({*error.allowed_methods, hdrs.METH_OPTIONS}))
            return web.Response(status=204, headers={hdrs.ALLOW: allow})
        return _refused(request, from_aiohttp(error, request))
    except Exception as error:
        if isinstance(error, ConnectionError) and request.transport is None:
            raise  # The client is gone; there is nobody to answer.
        log.exception("request_failed", method=request.method, route=request[ROUTE].path)
        return _refused(request, ServiceError("The error is in the log of the service."))


def _refused(request: web.Request, error: ServiceError) -> web.StreamResponse:
    api = request[ROUTE].api
    if error.refusal:
        label = api.label(request.headers)
        request.app[METRICS].refused.labels(label, error.refusal).inc()
    return error_answer(request, error, api)
