"""What every request passes through, from the outside in."""

import asyncio
import re
import time
import uuid
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Final

import structlog
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware
from aiohttp_apispec import validation_middleware

from service.errors import (
    BodyTooLarge,
    Cancelled,
    Forbidden,
    MalformedRequest,
    NotAcceptable,
    QuotaExceeded,
    RateLimited,
    RequestTimedOut,
    ServiceError,
    TooManyFailures,
    Unauthorized,
    UnsupportedEncoding,
    UnsupportedMediaType,
    ValidationFailed,
)
from service.http import auth, cors, headers, hosts, limits, problems
from service.http.keys import (
    DEADLINE,
    ERROR_CODE,
    METRICS,
    REQUEST_ID,
    SPANS,
    TRACE_ID,
)
from service.http.template import UNMATCHED, route_template
from service.http.timeouts import HEADER as TIMEOUT_HEADER
from service.http.timeouts import timeout_seconds
from service.telemetry import traces
from service.telemetry.exemplars import exemplar

log = structlog.get_logger(__name__)

HEADER: Final = "X-Request-ID"
SANE_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,128}", re.ASCII)
INVALID: Final = (
    ValidationFailed,
    MalformedRequest,
    BodyTooLarge,
    UnsupportedMediaType,
    UnsupportedEncoding,
    NotAcceptable,
)
"""Requests that no state of the service could have answered."""

REASONS: Final[Mapping[type[ServiceError], str]] = {
    **dict.fromkeys(INVALID, "validation"),
    Forbidden: "host",
    Unauthorized: "auth",
    TooManyFailures: "auth",
    RateLimited: "rate",
    QuotaExceeded: "rate",
}
"""What a request that is refused here counts as; the others are counted where they arise."""

POLLED: Final = frozenset({"/health", "/health/live", "/health/ready", "/metrics"})
"""Asked every few seconds by machines: no spans, and good answers are logged at DEBUG only."""


def request_id(request: web.BaseRequest) -> str:
    """Return the request's own ``X-Request-ID`` if it is sane, else a new one."""
    given = request.headers.get(HEADER, "")
    return given if SANE_ID.fullmatch(given) else uuid.uuid4().hex


@web.middleware
async def request_ids(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Take over a sane ``X-Request-ID`` or make one; logs and answers carry it."""
    request[REQUEST_ID] = request_id(request)
    with structlog.contextvars.bound_contextvars(request_id=request[REQUEST_ID]):
        return await handler(request)


@web.middleware
async def trace(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Take over the caller's trace (W3C ``traceparent``); logs and exemplars carry its id.

    Where spans are exported the request is one of them, and a request without a trace
    begins one.
    """
    parent = traces.parent(request.headers)
    spans = request.app.get(SPANS)
    route = route_template(request)
    if spans is None or route in POLLED:
        with _named(request, parent.trace_id if parent else ""):
            return await handler(request)
    with spans.request(
        parent,
        method=request.method,
        route="" if route == UNMATCHED else route,
        request_id=request[REQUEST_ID],
    ) as span:
        status, error = Cancelled.status, Cancelled.code
        try:
            with _named(request, span.trace_id):
                answer = await handler(request)
            status, error = answer.status, request.get(ERROR_CODE, "")
        finally:
            ours = status >= 500  # noqa: PLR2004 - a refusal is no error of the service
            span.answered(status, error, failed=ours or status == Cancelled.status)
    return answer


def _named(request: web.Request, trace_id: str) -> AbstractContextManager[object]:
    """Note the trace of a request, and put it on every line of the log."""
    request[TRACE_ID] = trace_id
    if not trace_id:
        return nullcontext()
    return structlog.contextvars.bound_contextvars(trace_id=trace_id)


@web.middleware
async def access_log(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Write one line per answer."""
    started = time.monotonic()
    status = Cancelled.status
    try:
        answer = await handler(request)
        status = answer.status
    finally:
        route = route_template(request)
        quiet = route in POLLED and status < 400  # noqa: PLR2004 - the first error status
        (log.debug if quiet else log.info)(
            "request_answered" if status != Cancelled.status else "request_abandoned",
            method=request.method,
            route=route,
            status=status,
            seconds=round(time.monotonic() - started, 4),
            error=request.get(ERROR_CODE),
        )
    return answer


@web.middleware
async def measurement(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Count the answer and its time by route template."""
    metrics = request.app[METRICS]
    route = route_template(request)
    method = request.method if request.method in hdrs.METH_ALL else "other"
    status = Cancelled.status
    started = time.monotonic()
    metrics.http_in_flight.inc()
    try:
        answer = await handler(request)
        status = answer.status
    finally:
        metrics.http_in_flight.dec()
        metrics.http_requests.labels(route, method, str(status)).inc()
        metrics.http_duration.labels(route, method).observe(
            time.monotonic() - started, exemplar(request[REQUEST_ID], request[TRACE_ID])
        )
    return answer


@web.middleware
async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn everything that is raised into one shape of answer."""
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
        return _refused(request, problems.from_aiohttp(error, request))
    except Exception as error:
        if isinstance(error, ConnectionError) and request.transport is None:
            raise  # The client is gone; there is nobody to answer.
        log.exception("request_failed", method=request.method, route=route_template(request))
        return problems.problem(request, ServiceError("The error is in the log of the service."))


def _refused(request: web.Request, error: ServiceError) -> web.StreamResponse:
    if reason := REASONS.get(type(error)):
        request.app[METRICS].refused.labels(reason).inc()
    return problems.problem(request, error)


@web.middleware
async def deadline(request: web.Request, handler: Handler) -> web.StreamResponse:
    """End a request that takes too long, from reading its body to writing its picture."""
    seconds = timeout_seconds(request)
    try:
        async with asyncio.timeout(seconds) as timeout:
            request[DEADLINE] = timeout
            return await handler(request)
    except TimeoutError as error:
        if not timeout.expired():
            raise
        raise timed_out(request) from error


def timed_out(request: web.Request) -> RequestTimedOut:
    """Return the error of a request that was older than it may be."""
    seconds = timeout_seconds(request)
    whose = TIMEOUT_HEADER if TIMEOUT_HEADER in request.headers else "REQUEST_TIMEOUT_SECONDS"
    return RequestTimedOut(
        f"It took more than {seconds:g} s ({whose}); "
        "ask for fewer steps or a smaller picture, or try again when the queue is shorter."
    )


async def mark(request: web.Request, answer: web.StreamResponse) -> None:
    """Sign every answer that leaves a route, streamed ones included."""
    sign(request, answer)
    cors.tell(request, answer)
    limits.tell(request, answer)


def sign(request: web.BaseRequest, answer: web.StreamResponse) -> None:
    """Give an answer the headers that all have."""
    answer.headers[HEADER] = request.get(REQUEST_ID) or uuid.uuid4().hex
    answer.headers[hdrs.SERVER] = "sd-api"
    headers.secure(answer)


STACK: Final[tuple[Middleware, ...]] = (
    request_ids,
    trace,
    access_log,
    measurement,
    errors,
    hosts.known_host,
    cors.preflight,
    auth.authentication,
    limits.rate,
    deadline,
    validation_middleware,
)


def add_to(app: web.Application) -> None:
    """Wrap every route of ``app``."""
    app.middlewares.extend(STACK)
    app.on_response_prepare.append(mark)
