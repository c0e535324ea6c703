"""Spans of requests and jobs, exported by OTLP over HTTP; needs the extra ``tracing``."""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import structlog
from opentelemetry import context as present
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState
from opentelemetry.util.types import AttributeValue

from service import __version__
from service.telemetry.logs import Seldom
from service.telemetry.traces import Parent, TracedJob, phases

log = structlog.get_logger(__name__)

RESOURCE: Final = {"service.name": "sd-api", "service.version": __version__}
METHODS: Final = frozenset(
    {"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"}
)
FLUSH_SECONDS: Final = 5.0
"""How long the end waits for a collector; what it does not take by then is lost."""

CHATTY: Final = (
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "opentelemetry.sdk._shared_internal",
)
"""A collector that is down makes them write several lines for every batch."""

SELDOM: Final = Seldom()


class RequestSpan:
    """The span of one request, still open."""

    def __init__(self, span: trace.Span) -> None:
        self._span = span
        self.trace_id = trace.format_trace_id(span.get_span_context().trace_id)

    def answered(self, status: int, error: str, *, failed: bool) -> None:
        """Say how it ended; a refusal with 4xx is no error of the service."""
        self._span.set_attribute("http.response.status_code", status)
        if error:
            self._span.set_attribute("error.type", error)
        if failed:
            self._span.set_status(Status(StatusCode.ERROR, error))


class Spans:
    """Makes spans and hands them to a thread that exports them.

    Everything is set by OpenTelemetry's own environment variables. A request only ever
    puts its spans into a bounded buffer; when the collector does not take them, the
    oldest are dropped. Prompts, keys and raw paths are never in an attribute.
    """

    def __init__(self) -> None:
        set_outside = OTELResourceDetector().detect().attributes
        own = {name: value for name, value in RESOURCE.items() if name not in set_outside}
        self._exporter: SpanExporter = OTLPSpanExporter()
        # Ended by close(), in the order of the application; not at the interpreter's end.
        self._provider = TracerProvider(resource=Resource.create(own), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter))
        self._tracer = self._provider.get_tracer("service", __version__)
        for name in CHATTY:
            logging.getLogger(name).addFilter(SELDOM)

    def close(self) -> None:
        """Export what is left, for a while; blocks."""
        flush = threading.Thread(target=self._provider.shutdown, name="last-spans", daemon=True)
        flush.start()
        flush.join(FLUSH_SECONDS)
        if flush.is_alive():
            log.warning("last_spans_lost", waited_seconds=FLUSH_SECONDS)
            self._exporter.shutdown()  # It would try again and again.

    @contextmanager
    def request(
        self, parent: Parent | None, *, method: str, route: str, request_id: str
    ) -> Iterator[RequestSpan]:
        """Make what happens inside part of one server span; ``route`` is empty for none."""
        known = method if method in METHODS else "HTTP"
        attributes = {
            "http.request.method": method if method in METHODS else "_OTHER",
            "url.scheme": "http",
            "sd.request_id": request_id,
        }
        if route:
            attributes["http.route"] = route
        span = self._tracer.start_span(
            f"{known} {route}".strip(), _remote(parent), SpanKind.SERVER, attributes
        )
        with trace.use_span(
            span, end_on_exit=True, record_exception=False, set_status_on_exception=False
        ):
            yield RequestSpan(span)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Make what happens inside one span below the present one."""
        with self._tracer.start_as_current_span(
            name, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield
            except BaseException as error:  # A client that hangs up cancels.
                span.set_status(Status(StatusCode.ERROR, type(error).__name__))
                raise

    def resume(self, trace_id: str) -> None:
        """Make what follows in the present context part of a trace that began before a restart.

        Its span is not known any more, so what follows hangs below one that nobody sent.
        """
        lost = SpanContext(
            trace_id=int(trace_id, 16),
            span_id=RandomIdGenerator().generate_span_id(),
            is_remote=True,
            trace_flags=TraceFlags(TraceFlags.SAMPLED),
        )
        present.attach(trace.set_span_in_context(trace.NonRecordingSpan(lost)))

    def job(self, job: TracedJob) -> None:
        """Add the spans of a job that ended, below the present one, from its own times."""
        # Both clocks are read once: a step of the wall clock shifts the spans and bends none.
        epoch = time.time_ns() - time.monotonic_ns()
        # What comes after the last image, to keep it, has spans of its own.
        ended = job.drawn or job.ended or time.monotonic()
        error = "" if job.error is None else job.error.code
        waited = ended if job.started is None else job.started
        self._add(
            "queue",
            (epoch, job.created, waited),
            {"sd.job_id": job.id} | ({} if job.started else _ended(job)),
            error if job.started is None else "",
        )
        if job.started is None:
            return
        generation = self._add("generation", (epoch, job.started, ended), _described(job), error)
        inside = trace.set_span_in_context(generation)
        for phase in phases(job):
            self._add(
                phase.stage,
                (epoch, phase.start, phase.end),
                {"sd.device_seconds": phase.device_seconds},
                context=inside,
            )

    def _add(
        self,
        name: str,
        times: tuple[int, float, float],
        attributes: dict[str, AttributeValue],
        error: str = "",
        context: Context | None = None,
    ) -> trace.Span:
        """Add a span of the past: ``times`` are the epoch of the monotonic clock and its ends."""
        epoch, start, end = times
        span = self._tracer.start_span(
            name, context, attributes=attributes, start_time=epoch + _nanoseconds(start)
        )
        if error:
            span.set_attribute("error.type", error)
            span.set_status(Status(StatusCode.ERROR, error))
        span.end(epoch + _nanoseconds(end))
        return span


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)


def _described(job: TracedJob) -> dict[str, AttributeValue]:
    """Return what a job is: numbers and names of ours, nothing that a user wrote."""
    request = job.request
    return {
        "sd.job_id": job.id,
        "sd.width": request.width,
        "sd.height": request.height,
        "sd.steps": request.total_steps,
        "sd.num_images": request.num_images,
        "sd.sampler": request.sampler,
        "sd.schedule": request.schedule,
        "sd.attempts": job.attempts,
        "sd.steps_done": job.steps_done,
        **_ended(job),
    }


def _ended(job: TracedJob) -> dict[str, AttributeValue]:
    return {"sd.outcome": job.outcome.value} if job.outcome else {}


def _remote(parent: Parent | None) -> Context:
    """Return the context of a request: the caller's span, or nothing."""
    if parent is None:
        return Context()
    span = SpanContext(
        trace_id=int(parent.trace_id, 16),
        span_id=int(parent.span_id, 16),
        is_remote=True,
        trace_flags=TraceFlags(TraceFlags.SAMPLED if parent.sampled else TraceFlags.DEFAULT),
        trace_state=TraceState(list(parent.state)),
    )
    return trace.set_span_in_context(trace.NonRecordingSpan(span), Context())
