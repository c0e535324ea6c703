"""A job: one accepted request, from the queue to its images or its error."""

import asyncio
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from service.access.allowance import Charge
from service.core.events import JobFinished
from service.core.inputs import InputSource
from service.core.model import facts_of
from service.core.outcome import Outcome, outcome_of
from service.core.spec import GenerationSpec
from service.errors import ServiceError
from service.telemetry.labels import FIRST_ENGINE, NATIVE


class JobState(StrEnum):
    """Where a job is."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


STATES: Final = {
    Outcome.SUCCEEDED: JobState.SUCCEEDED,
    Outcome.FAILED: JobState.FAILED,
    Outcome.TIMED_OUT: JobState.FAILED,
    Outcome.DISCONNECTED: JobState.CANCELLED,
    Outcome.CANCELLED: JobState.CANCELLED,
    Outcome.SHUT_DOWN: JobState.CANCELLED,
}
"""The last state of a job, by its outcome."""

FINAL: Final = frozenset(STATES.values())


def new_id() -> str:
    """Return an id that no other job has."""
    return uuid.uuid4().hex


@dataclass(kw_only=True, eq=False)
class Job:
    """State of one accepted request; times are ``time.monotonic`` seconds.

    Only the dispatcher moves a job on; others read it, wait on it, or ask the dispatcher
    to cancel it.
    """

    request: GenerationSpec
    id: str = field(default_factory=new_id)
    request_id: str = ""
    trace_id: str = ""
    """Of the W3C trace that the request belongs to; empty for none."""
    owner: str = "anonymous"
    """Name of the API key that it belongs to."""
    api: str = NATIVE
    """The API that it came through."""
    model: str = ""
    """Key of the model that draws it (``ModelCatalog.key``); empty for the default one."""
    engine: str = FIRST_ENGINE
    """Name of the engine slot that ran it last."""
    charge: Charge | None = field(default=None, repr=False)
    """Images that its key was charged; settled at the end."""
    state: JobState = JobState.QUEUED
    created: float = field(default_factory=time.monotonic)
    started: float | None = None
    """When it last joined a batch."""
    drawn: float | None = None
    """When its images were finished; it ends when they are where its client finds them."""
    ended: float | None = None
    attempts: int = 0
    """How often it was begun; what counts for the last attempt."""
    epoch: int = 0
    """Number of its latest attempt; it only grows, also where an attempt does not count."""
    used: int = 0
    """Highest number of an attempt that an earlier process began, and wrote nowhere."""
    held: bool = False
    """Whether it may only go on where it ran before, for now."""
    steps_done: int = 0
    interrupted: bool = False
    """Whether it is to end early, with its unfinished images; also in a later attempt."""
    gpu_seconds: float = 0.0
    """Denoising time of this attempt, as far as it was reported."""
    result: JobFinished | None = None
    error: ServiceError | None = None
    outcome: Outcome | None = None
    """How it ended; None before."""
    inputs: InputSource | None = field(default=None, repr=False)
    """Reads the images that the request refers to; None where there are none."""
    model_version: str = ""
    model_facts: Mapping[str, Any] = field(default_factory=facts_of)
    """What the metadata say of the model that drew it."""
    _done: asyncio.Event = field(default_factory=asyncio.Event, repr=False)

    @property
    def final(self) -> bool:
        """Whether nothing will change any more."""
        return self.state in FINAL

    def begin(self, now: float | None = None) -> None:
        """Enter a batch."""
        self.state = JobState.RUNNING
        self.attempts += 1
        self.epoch = max(self.epoch, self.used) + 1
        self.steps_done = 0
        self.gpu_seconds = 0.0
        self.started = time.monotonic() if now is None else now

    def resume(self, epoch: int, now: float | None = None) -> None:
        """Be in the batch that it never left: its attempt went on, and nobody heard of it.

        A higher ``epoch`` than its own is of an attempt that was begun and written nowhere.
        """
        self.attempts += epoch > self.epoch
        self.epoch = epoch
        self.state, self.held = JobState.RUNNING, False
        self.started = time.monotonic() if now is None else now

    def requeue(self, *, counted: bool = True) -> None:
        """Go back to waiting, because the engine that ran it is gone, or its model is."""
        self.state = JobState.QUEUED
        self.attempts -= 0 if counted else 1
        self.steps_done = 0
        self.started = None

    def draw(
        self, result: JobFinished, model_version: str, facts: Mapping[str, Any] | None = None
    ) -> None:
        """Have images; whether it succeeds depends on whether they can be kept."""
        self.result = result
        self.interrupted = result.interrupted_after is not None
        if result.interrupted_after is not None:
            self.steps_done = result.interrupted_after
        self.model_version = model_version
        self.model_facts = facts_of() if facts is None else facts
        self.drawn = time.monotonic()

    def succeed(self) -> None:
        """End with the images that it has."""
        self._end(Outcome.SUCCEEDED)

    def fail(self, error: ServiceError) -> None:
        """End with an error, whatever its class: an engine may give it any name."""
        self.error = error
        self._end(Outcome.FAILED)

    def cancel(self, error: ServiceError) -> None:
        """End before the images are finished; ``error`` says why."""
        self.error = error
        self._end(outcome_of(error))

    def _end(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self.state = STATES[outcome]
        self.ended = time.monotonic()
        if self.charge is not None:
            self.charge.settle(outcome, started=self.attempts > 0)
        self._done.set()

    async def wait(self) -> JobFinished:
        """Wait for the end and return the images.

        Raises:
            ServiceError: the job ended without images.

        """
        await self._done.wait()
        if self.error is not None:
            raise self.error
        if self.result is None:  # pragma: no cover - _end is only called with one of both
            raise ServiceError("A job ended with neither images nor an error.")
        return self.result

    @property
    def log_context(self) -> dict[str, object]:
        """What every log line about this job carries; prompts are dropped unless asked for."""
        request = self.request
        width, height = request.output_size
        return {
            "job_id": self.id,
            "request_id": self.request_id,
            **({"trace_id": self.trace_id} if self.trace_id else {}),
            **({"key": self.owner} if self.owner != "anonymous" else {}),
            "width": width,
            "height": height,
            "steps": request.total_steps,
            "sampler": request.sampler,
            "schedule": request.schedule,
            "num_images": request.num_images,
            **({"model": request.model} if request.model else {}),
            **({"adapters": [each.name for each in request.adapters]} if request.adapters else {}),
            "prompt": request.prompt,
            "negative_prompt": request.negative_prompt,
        }
