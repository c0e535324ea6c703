"""Traces: the caller's, and when a job was in which stage."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from service.core.events import JobFinished
from service.core.outcome import Outcome
from service.core.spec import GenerationSpec
from service.core.stage import Stage
from service.errors import ServiceError

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


class Headers(Protocol):
    """What is needed of a request's headers."""

    def getall(self, key: str, default: Sequence[str]) -> Sequence[str]:
        """Return all values of a header."""


class TracedJob(Protocol):
    """What spans tell of a job; times are ``time.monotonic`` seconds."""

    request: GenerationSpec
    id: str
    created: float
    started: float | None
    drawn: float | None
    ended: float | None
    attempts: int
    steps_done: int
    result: JobFinished | None
    error: ServiceError | None
    outcome: Outcome | None


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

    stage: Stage
    start: float
    end: float
    device_seconds: float
    """The job's share of the device; less than the time that passed in a shared batch."""


def phases(job: TracedJob) -> list[Phase]:
    """Lay the measured stages of a finished job along its time in the engine.

    A job reports how much of the device each stage took, not when. The stages follow each
    other: those before denoising begin with the job, those behind it end with it, and
    denoising, which it shares with others, has all that lies between.
    """
    if job.result is None or job.started is None or job.drawn is None:
        return []
    took = job.result.times.by_stage
    order = [name for name, seconds in took.items() if seconds > 0 or name == Stage.DENOISE]
    middle = order.index(Stage.DENOISE)
    outside = sum(took[name] for name in order if name != Stage.DENOISE)
    # What is reported comes from other clocks and can be longer than what passed here.
    scale = min(1.0, (job.drawn - job.started) / outside) if outside > 0 else 1.0
    starts, at = {}, job.started
    for name in order[:middle]:
        starts[name], at = at, at + took[name] * scale
    starts[Stage.DENOISE], at = at, job.drawn
    for name in reversed(order[middle + 1 :]):
        starts[name] = at = at - took[name] * scale
    ends = [*(starts[name] for name in order[1:]), job.drawn]
    return [
        Phase(stage=name, start=starts[name], end=max(end, starts[name]), device_seconds=took[name])
        for name, end in zip(order, ends, strict=True)
    ]
