"""A job that is not over, and who has to do with it."""

import asyncio
import time
from collections.abc import Callable, Mapping
from contextvars import Context, copy_context
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from service.access.allowance import Charge
from service.core.spec import GenerationSpec
from service.errors import Disconnected, ServiceError
from service.jobs.durable.event_log import LAST, EventLog, JobEvent
from service.jobs.inputs.base import Upload
from service.jobs.job import Job, new_id
from service.jobs.store.stored import StoredJob
from service.telemetry.labels import APIS, NATIVE


class Durability(StrEnum):
    """How long a job outlives the client that submitted it."""

    NONE = "none"
    """It ends with its client, and nothing of it is on the disk."""
    KEYED = "keyed"
    """It is on the disk under an idempotency key, and ends with its last client."""
    PROMISED = "promised"
    """It is on the disk, and its client was told that it will be run."""


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What comes with a job besides its images."""

    charge: Callable[[], Charge | None] = lambda: None
    """Charges a new job to its owner; raises QuotaExceeded."""
    gone: Callable[[], ServiceError] = Disconnected
    """Why its client stopped waiting; called when it has."""
    api: str = NATIVE
    """The API that it came through."""
    request_id: str = ""
    trace_id: str = ""
    timeout_seconds: float | None = None
    idempotency_key: str | None = None
    idempotency_digest: str = ""
    webhook: str | None = None
    uploads: Mapping[str, Upload] = field(default_factory=dict)
    """Images that the request brought, by their names (``inputs.base.NAMES``)."""


@dataclass(eq=False)
class LiveJob:
    """A job that is not over: on the disk, if it is kept there."""

    job: Job
    stored: StoredJob
    """Its row, which is in memory only where nothing is kept; the last one when it is over."""
    durability: Durability = Durability.PROMISED
    clients: int = 0
    """Requests that wait for its images."""
    events: EventLog = field(default_factory=EventLog)
    settled: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when it is over, and its end on the disk if it is kept there."""
    deadline: asyncio.TimerHandle | None = None
    position_due: float = 0.0
    """When its position may be told again, on the clock of the event loop."""
    position_order: int = -1
    """The order of the queue in which its position was told last."""
    context: Context = field(default_factory=copy_context, repr=False)
    """Of the request that brought it: what is done at its end is part of the same trace."""

    @property
    def durable(self) -> bool:
        """Whether it is on the disk."""
        return self.durability is not Durability.NONE

    @property
    def promised(self) -> bool:
        """Whether it is run though no client waits for it."""
        return self.durability is Durability.PROMISED

    @property
    def row(self) -> StoredJob:
        """The row of a job that is in memory only, as it is now."""
        job, origin = self.job, self.stored.created_at - self.job.created
        return replace(
            last_row(self.stored, job),
            attempts=job.attempts,
            started_at=job.started and job.started + origin,
            finished_at=job.ended and job.ended + origin,
        )


def new_job(spec: GenerationSpec, owner: str, durability: Durability, terms: Terms) -> LiveJob:
    """Return a job that was not accepted yet."""
    now, seconds = time.time(), terms.timeout_seconds
    row = StoredJob(
        id=new_id(),
        owner=owner,
        request=spec,
        api=terms.api,
        request_id=terms.request_id,
        trace_id=terms.trace_id,
        created_at=now,
        deadline_at=None if seconds is None else now + seconds,
        idempotency_key=terms.idempotency_key,
        idempotency_digest=terms.idempotency_digest,
        webhook=terms.webhook,
    )
    clients = int(durability is not Durability.PROMISED)
    return LiveJob(job_of(row), row, durability, clients=clients)


def last_row(stored: StoredJob, job: Job, metadata: Mapping[str, Any] | None = None) -> StoredJob:
    """Return the row of a job with what came of it."""
    return replace(
        stored,
        state=job.state,
        error_code=job.error.code if job.error else "",
        error_detail=job.error.detail if job.error else "",
        steps_done=job.steps_done,
        metadata=metadata,
        model_version=job.model_version,
    )


def last_event(stored: StoredJob) -> JobEvent:
    """Return the event that ends the events of a job."""
    code, detail = stored.error_code, stored.error_detail
    data = {"id": stored.id} | ({"code": code, "detail": detail} if code else {})
    return JobEvent(number=0, kind=LAST.get(stored.state, "failed"), data=data)


def job_of(stored: StoredJob, charge: Charge | None = None) -> Job:
    """Return the job of a row."""
    return Job(
        id=stored.id,
        owner=stored.owner,
        request=stored.request,
        request_id=stored.request_id,
        trace_id=stored.trace_id,
        api=stored.api if stored.api in APIS else NATIVE,  # A later version knows more of them.
        attempts=stored.attempts,
        epoch=stored.epoch,
        charge=charge,
        created=time.monotonic(),
    )
