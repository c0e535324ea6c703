"""Traces: the caller's, when a job was in which stage, and whether spans are exported."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import urlsplit

import structlog

from service.jobs.job import Job

if TYPE_CHECKING:
    from service.telemetry.spans import Spans  # It needs the extra.

log = structlog.get_logger(__name__)

TRACEPARENT: Final = re.compile(
    r"(?P<version>[0-9a-f]{2})-(?P<trace>[0-9a-f]{32})-(?P<span>[0-9a-f]{16})"
    r"-(?P<flags>[0-9a-f]{2})(?P<rest>-.*)?"
)
TRACESTATE: Final = re.compile(
    r"(?P<key>[a-z][a-z0-9_*/-]{0,255}|[a-z0-9][a-z0-9_*/-]{0,240}@[a-z][a-z0-9_*/-]{0,13})"
    r"=(?P<value>[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e])"
)
"""One member: https://www.w3.org/TR/trace-context/#tracestate-header-field-values."""

MOST_CHARACTERS: Final = 512
"""Version 00 has 55; a longer one of a later version is not worth reading."""

MOST_MEMBERS: Final = 32
SAMPLED: Final = 0x01

ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
PROTOCOL: Final = "http/protobuf"
INSTALL: Final = "pip install opentelemetry-sdk opentelemetry-exporter-otlp-proto-http"


class Headers(Protocol):
    """What is needed of a request's headers."""

    def getall(self, key: str, default: Sequence[str]) -> Sequence[str]:
        """Return all values of a header."""


@dataclass(frozen=True, kw_only=True)
class Parent:
    """The caller's span, as W3C Trace Context names it."""

    trace_id: str
    """32 lower-case hexadecimal digits, not all zero."""
    span_id: str
    sampled: bool
    state: tuple[tuple[str, str], ...] = ()
    """What systems before us added, passed on unread."""


def parent(headers: Headers) -> Parent | None:
    """Read ``traceparent`` and ``tracestate``; None where the first is absent or broken.

    A broken header is no error: the specification has the receiver start anew.
    https://www.w3.org/TR/trace-context/#traceparent-header
    """
    values = headers.getall("traceparent", ())
    if len(values) != 1 or len(values[0]) > MOST_CHARACTERS:
        return None
    found = TRACEPARENT.fullmatch(values[0])
    if found is None or found["version"] == "ff" or (found["version"] == "00" and found["rest"]):
        return None
    if not (found["trace"].strip("0") and found["span"].strip("0")):
        return None
    return Parent(
        trace_id=found["trace"],
        span_id=found["span"],
        sampled=bool(int(found["flags"], 16) & SAMPLED),
        state=_state(headers.getall("tracestate", ())),
    )


def _state(values: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Return the members of ``tracestate``; none at all if one of them is broken."""
    members = [member.strip(" \t") for value in values for member in value.split(",")]
    found = [TRACESTATE.fullmatch(member) for member in members if member]
    pairs = {match["key"]: match["value"] for match in found if match is not None}
    sound = len(pairs) == len(found) <= MOST_MEMBERS
    return tuple(pairs.items()) if sound else ()


@dataclass(frozen=True, kw_only=True)
class Phase:
    """When a job was in one stage of the engine, in ``time.monotonic`` seconds."""

    stage: str
    start: float
    end: float
    device_seconds: float
    """The job's share of the device; less than the time that passed in a shared batch."""


def phases(job: Job) -> list[Phase]:
    """Lay the measured stages of a finished job along its time in the engine.

    A job reports how much of the device each stage took, not when. The stages follow each
    other: those before denoising begin with the job, those behind it end with it, and
    denoising, which it shares with others, has all that lies between.
    """
    if job.result is None or job.started is None or job.ended is None:
        return []
    times = job.result.times
    took = {row.name: float(getattr(times, row.name)) for row in fields(times)}
    order = [name for name, seconds in took.items() if seconds > 0 or name == "denoise"]
    middle = order.index("denoise")
    outside = sum(took[name] for name in order if name != "denoise")
    # What is reported comes from other clocks and can be longer than what passed here.
    scale = min(1.0, (job.ended - job.started) / outside) if outside > 0 else 1.0
    starts, at = {}, job.started
    for name in order[:middle]:
        starts[name], at = at, at + took[name] * scale
    starts["denoise"], at = at, job.ended
    for name in reversed(order[middle + 1 :]):
        starts[name] = at = at - took[name] * scale
    ends = [*(starts[name] for name in order[1:]), job.ended]
    return [
        Phase(stage=name, start=starts[name], end=max(end, starts[name]), device_seconds=took[name])
        for name, end in zip(order, ends, strict=True)
    ]


def endpoint(environment: Mapping[str, str]) -> str:
    """Return where spans go, or an empty text: tracing is off."""
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return ""
    if environment.get("OTEL_TRACES_EXPORTER", "").strip().lower() == "none":
        return ""
    return next((environment[name] for name in ENDPOINTS if environment.get(name)), "")


def start(environment: Mapping[str, str]) -> "Spans | None":
    """Start to export spans, if an OTLP endpoint is configured and the extra is installed.

    The settings are OpenTelemetry's own, and nothing in them can keep the service from
    starting: whoever looks for spans that do not come finds the reason in the log.
    """
    goal = endpoint(environment)
    if not goal:
        return None
    try:
        from service.telemetry.spans import Spans  # noqa: PLC0415 - it needs the extra
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("opentelemetry"):
            raise
        log.warning("tracing_extra_missing", missing=error.name, cure=INSTALL)
        return None
    if (problem := _problem(goal)) is not None:
        log.error("tracing_not_started", reason=problem)
        return None
    asked = next((environment[name] for name in PROTOCOLS if environment.get(name)), PROTOCOL)
    if asked != PROTOCOL:
        log.warning("tracing_protocol_unknown", asked=asked, used=PROTOCOL)
    try:
        spans = Spans()
    except Exception as error:  # noqa: BLE001 - whatever OpenTelemetry makes of its settings
        log.error("tracing_not_started", reason=str(error))  # noqa: TRY400 - no traceback helps
        return None
    log.info("tracing_started", endpoint=_without_password(goal))
    return spans


def _problem(url: str) -> str | None:
    """Return why spans cannot go to ``url``; None where they may."""
    try:
        parts = urlsplit(url)
        whole = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        whole = False
    return None if whole else "the OTLP endpoint must be a URL such as http://127.0.0.1:4318"


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()
