"""Traces of requests (W3C ``traceparent``), and the export of their spans."""

import os
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

from service.errors import Disconnected
from service.http.route import UNMATCHED
from service.http.state import ERROR_CODE, REQUEST_ID, ROUTE, SPANS, TRACE_ID
from service.system.executors import UPKEEP
from service.telemetry import span_export, traces


@web.middleware
async def trace(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Take over the caller's trace; logs and exemplars carry its id.

    Where spans are exported the request is one of them, and a request without a trace
    begins one.
    """
    parent = traces.parent(request.headers)
    spans, route = request.app.get(SPANS), request[ROUTE]
    if spans is None or route.polled:
        with _named(request, parent.trace_id if parent else ""):
            return await handler(request)
    with spans.request(
        parent,
        method=request.method,
        route="" if route.path == UNMATCHED else route.path,
        request_id=request[REQUEST_ID],
    ) as span:
        status, error = Disconnected.status, Disconnected.code
        try:
            with _named(request, span.trace_id):
                answer = await handler(request)
            status, error = answer.status, request.get(ERROR_CODE, "")
        finally:
            ours = status >= 500  # noqa: PLR2004 - a refusal is no error of the service
            span.answered(status, error, failed=ours or status == Disconnected.status)
    return answer


def _named(request: web.Request, trace_id: str) -> AbstractContextManager[object]:
    """Note the trace of a request, and put it on every line of the log."""
    request[TRACE_ID] = trace_id
    if not trace_id:
        return nullcontext()
    return structlog.contextvars.bound_contextvars(trace_id=trace_id)


def add_to(app: web.Application) -> None:
    """Export spans from the start of ``app`` to its end; call it before other clean-ups.

    What is cleaned up last began first: the spans of the last requests are exported too.
    """
    app.cleanup_ctx.append(_spans)


@asynccontextmanager
async def _spans(app: web.Application) -> AsyncIterator[None]:
    spans = span_export.start(os.environ)
    for name in span_export.secrets(os.environ):
        del os.environ[name]  # The exporter has read them; the engine needs none.
    if spans is None:
        yield
        return
    app[SPANS] = spans
    yield
    await UPKEEP.run(spans.close)
