"""A job: one accepted request, from the queue to its pictures or its error."""

import asyncio
import time
import uuid
from dataclasses import dataclass, field
from enum import StrEnum

from service.diffusion.generation import GenerationRequest, JobFinished
from service.errors import Cancelled, RequestTimedOut, ServiceError, ShuttingDown
from service.jobs.allowance import Charge


class JobState(StrEnum):
    """Where a job is."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


FINAL = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})


def new_id() -> str:
    """Return an id that no other job has."""
    return uuid.uuid4().hex


@dataclass(kw_only=True, eq=False)
class Job:
    """State of one accepted request; times are ``time.monotonic`` seconds.

    Only the consumer moves a job on; others read it, wait on it, or ask the consumer
    to cancel it.
    """

    request: GenerationRequest
    id: str = field(default_factory=new_id)
    request_id: str = ""
    trace_id: str = ""
    """Of the W3C trace that the request belongs to; empty for none."""
    key: str = "anonymous"
    """Name of the API key that it belongs to."""
    charge: Charge | None = field(default=None, repr=False)
    """Pictures that its key was charged; settled at the end."""
    state: JobState = JobState.QUEUED
    created: float = field(default_factory=time.monotonic)
    started: float | None = None
    """When it last joined a batch."""
    ended: float | None = None
    attempts: int = 0
    steps_done: int = 0
    gpu_seconds: float = 0.0
    """Denoising time of this attempt, as far as it was reported."""
    result: JobFinished | None = None
    error: ServiceError | None = None
    model_version: str = ""
    _done: asyncio.Event = field(default_factory=asyncio.Event, repr=False)

    @property
    def final(self) -> bool:
        """Whether nothing will change any more."""
        return self.state in FINAL

    @property
    def outcome(self) -> str:
        """How it ended, as the metrics count it."""
        if self.state is JobState.SUCCEEDED:
            return "succeeded"
        if isinstance(self.error, RequestTimedOut):
            return "timed_out"
        if isinstance(self.error, Cancelled):
            return "client_gone"
        return "failed" if self.state is JobState.FAILED else "cancelled"

    @property
    def remaining_work(self) -> int:
        """Pixel steps still to do."""
        left = max(self.request.steps - self.steps_done, 0)
        return self.request.width * self.request.height * left * self.request.num_images

    def begin(self, now: float | None = None) -> None:
        """Enter a batch."""
        self.state = JobState.RUNNING
        self.attempts += 1
        self.steps_done = 0
        self.gpu_seconds = 0.0
        self.started = time.monotonic() if now is None else now

    def requeue(self) -> None:
        """Go back to waiting, because the engine that ran it is gone."""
        self.state = JobState.QUEUED
        self.steps_done = 0
        self.started = None

    def succeed(self, result: JobFinished, model_version: str) -> None:
        """End with pictures."""
        self.result = result
        self.model_version = model_version
        self._end(JobState.SUCCEEDED)

    def fail(self, error: ServiceError) -> None:
        """End with an error."""
        self.error = error
        self._end(JobState.FAILED)

    def cancel(self, error: ServiceError) -> None:
        """End because nobody wants the pictures any more; ``error`` says why."""
        self.error = error
        self._end(JobState.CANCELLED)

    def _end(self, state: JobState) -> None:
        self.state = state
        self.ended = time.monotonic()
        if self.charge is not None and isinstance(self.error, ShuttingDown):
            self.charge.give_back()  # Whoever hung up, it was not the client.
        elif self.charge is not None:
            self.charge.settle(self.outcome, started=self.attempts > 0)
        self._done.set()

    async def wait(self) -> JobFinished:
        """Wait for the end and return the pictures.

        Raises:
            ServiceError: the job ended without pictures.

        """
        await self._done.wait()
        if self.error is not None:
            raise self.error
        if self.result is None:  # pragma: no cover - _end is only called with one of both
            raise ServiceError("A job ended with neither pictures nor an error.")
        return self.result

    @property
    def log_context(self) -> dict[str, object]:
        """What every log line about this job carries; prompts are dropped unless asked for."""
        request = self.request
        return {
            "job_id": self.id,
            "request_id": self.request_id,
            **({"trace_id": self.trace_id} if self.trace_id else {}),
            **({"key": self.key} if self.key != "anonymous" else {}),
            "width": request.width,
            "height": request.height,
            "steps": request.steps,
            "sampler": request.sampler,
            "num_images": request.num_images,
            "prompt": request.prompt,
            "negative_prompt": request.negative_prompt,
        }
