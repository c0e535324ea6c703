"""The log line and the metrics of each answer."""

import time
from typing import Final

import structlog
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from service.errors import Disconnected, EngineUnavailable
from service.http.state import ERROR_CODE, METRICS, PROBED, REQUEST_ID, ROUTE, TRACE_ID
from service.telemetry.exemplars import exemplar

log = structlog.get_logger(__name__)

NOT_READY: Final = EngineUnavailable.status


@web.middleware
async def observation(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Log and count the answer and its time by route."""
    metrics, route, last = request.app[METRICS], request[ROUTE], request.app[PROBED]
    started, status = time.monotonic(), Disconnected.status
    metrics.http_in_flight.inc()
    try:
        answer = await handler(request)
        status = answer.status
    finally:
        seconds = time.monotonic() - started
        method = request.method if request.method in hdrs.METH_ALL else "other"
        metrics.http_in_flight.dec()
        labels = (route.api.label(request.headers), route.path, method)
        metrics.http_requests.labels(*labels, str(status)).inc()
        metrics.http_duration.labels(*labels).observe(
            seconds, exemplar(request[REQUEST_ID], request[TRACE_ID])
        )
        # A service that is not ready is worth a line, but not one for each probe.
        still = status == last.get(route.path) == NOT_READY
        quiet = route.polled and (still or status < 400)  # noqa: PLR2004 - the first error status
        if route.polled:
            last[route.path] = status
        (log.debug if quiet else log.info)(
            "request_answered" if status != Disconnected.status else "request_abandoned",
            method=request.method,
            route=route.path,
            status=status,
            seconds=round(seconds, 4),
            error=request.get(ERROR_CODE),
        )
    return answer
