"""Interface of the job store: one row per accepted job, and the images that keys have used."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, Self

from service.core.outcome import Delivery
from service.errors import JobExpired, NotFound, ServiceError, ValidationFailed
from service.jobs.job import FINAL, JobState
from service.jobs.store.stored import Page, StoredJob


class Used(NamedTuple):
    """Images that an owner used for good in one minute since 1970."""

    owner: str
    minute: int
    images: int


@dataclass(frozen=True, kw_only=True)
class StoreFigures:
    """What the metrics show of a store next to its ``counts``."""

    undelivered: int
    undelivered_since: float | None
    """When the first job ended whose webhook is not delivered."""
    set_aside: int
    """Damaged rows."""


@dataclass(frozen=True, kw_only=True)
class JobEnd:
    """How a job ended."""

    state: JobState
    epoch: int | None = None
    """None where the end belongs to no attempt, like a cancel or a missed deadline."""
    error: ServiceError | None = None
    steps_done: int = 0
    metadata: Mapping[str, Any] | None = None
    model_version: str = ""
    paid: int = 0
    """Images that count for the quota of its owner."""
    forget_key: bool = False
    """Whether its idempotency key stands for nothing any more."""

    def __post_init__(self) -> None:
        """Refuse a state that is no end."""
        if self.state not in FINAL:
            raise ValueError(f"A job cannot end as {self.state}.")


class JobStore(Protocol):
    """Keeps jobs; SQLite in production, memory in tests, a database server later.

    A method returns when its change is kept, or raises and has changed nothing. A call whose
    task is cancelled may still be carried out: call ``add`` and ``finish`` from tasks that
    outlive their clients. Every method may raise StoreUnavailable.

    The ``epoch`` of a write is the number of the attempt that it comes from: ``Job.epoch``, which
    only grows. Once a later attempt has begun, the write changes nothing and returns False.
    """

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def open(self) -> None:
        """Make the store ready; raises StoreError with the cure where it cannot be used."""

    async def close(self) -> None:
        """Finish what was asked for, and let go of the store."""

    async def check(self) -> None:
        """Raise StoreUnavailable where the store cannot be used now."""

    async def add(self, job: StoredJob) -> StoredJob:
        """Keep an accepted job, and return the one that now stands for it.

        Where its owner has used the same idempotency key before, nothing is kept and the
        earlier job comes back; its digest tells whether this is the same request again.
        """

    async def find(self, owner: str, idempotency_key: str) -> StoredJob | None:
        """Return the job that an idempotency key of the owner stands for; None for a free key."""

    async def begin(self, job_id: str, epoch: int) -> bool:
        """Begin an unfinished job's attempt, which has a higher epoch than all before it."""

    async def resume(self, job_id: str, epoch: int) -> bool:
        """Let an unfinished job be running again in its latest attempt, which never ended.

        One with a higher epoch than the job's was begun, and that could not be written.
        """

    async def requeue(self, job_id: str, epoch: int) -> bool:
        """Let an unfinished job wait again, its attempts kept."""

    async def hand_back(self, job_id: str, epoch: int) -> bool:
        """Let a job wait again that was stopped and not lost: its attempt does not count.

        Its epoch is used up all the same.
        """

    async def finish(self, job_id: str, end: JobEnd) -> bool:
        """End a job; return whether this call did it, which is so for one call at most."""

    async def release(self, job_id: str) -> bool:
        """Let the idempotency key of a job that is over go, for another job to take."""

    async def deliver(self, job_id: str, delivery: Delivery) -> bool:
        """Keep how far the webhook of a job got."""

    async def get(self, job_id: str, owner: str) -> StoredJob:
        """Return a job of the owner; raises what ``missing`` returns where there is none."""

    async def page(
        self, owner: str, *, state: JobState | None = None, cursor: str | None = None, limit: int
    ) -> Page:
        """Return jobs of the owner, the newest first, those after ``cursor``.

        A cursor stays right whatever is added or removed meanwhile. Raises ValidationFailed
        for one that is not this owner's.
        """

    async def unfinished(self) -> list[StoredJob]:
        """Return the jobs that are not over, in the order of acceptance."""

    async def undelivered(self) -> list[StoredJob]:
        """Return the finished jobs whose webhook is still to be sent."""

    async def set_aside(self) -> int:
        """Look through all jobs for damaged rows; return how many are set aside."""

    async def with_images(self) -> frozenset[str]:
        """Return the ids of all jobs that may have images, unfinished ones too."""

    async def expire(
        self, *, max_age_seconds: float | None = None, ids: Iterable[str] = ()
    ) -> list[str]:
        """Forget finished jobs but for their id, so that asking for them is 410 and not 404.

        Those that ended longer ago than ``max_age_seconds``, and those of ``ids``, whose
        images had to make room. Returns the ids of those it met.
        """

    async def expire_without_images(self, *, max_age_seconds: float, most: int) -> int:
        """Forget jobs that failed or were cancelled, as ``expire`` does; return how many.

        Those that ended longer ago than ``max_age_seconds``, and those beyond ``most``: the
        oldest of the owners that have most, so that a flood of one leaves others theirs.
        Jobs whose webhook is on its way stay.
        """

    async def purge(self, max_age_seconds: float, *, most: int) -> int:
        """Forget ids that expired longer ago, or before the last ``most``; return how many."""

    async def remove(self, owner: str, *, unfinished: bool = False) -> list[str]:
        """Remove the jobs of an owner that are over, damaged rows and ids of expired jobs, too.

        With ``unfinished`` all others as well, which nobody may be running. Returns the ids.
        What a file held of them is overwritten; the images that the owner used stay counted.
        """

    async def counts(self, owner: str | None = None) -> Mapping[JobState, int]:
        """Return how many jobs are in each state, of one owner or of all, without the expired."""

    async def figures(self) -> StoreFigures:
        """Return what the metrics show."""

    async def add_usage(self, used: Iterable[Used]) -> None:
        """Add images to those that owners used; all of them or none."""

    async def usage(self, since_minute: int) -> list[Used]:
        """Return the images used from a minute on; what was used before is forgotten."""


def missing(*, expired: bool) -> ServiceError:
    """Return the error for a job that the owner does not have: another's looks like none."""
    if expired:
        return JobExpired("The job and its images have expired.")
    return NotFound("There is no job with this id.")


def unknown_cursor() -> ServiceError:
    """Return what is raised for a cursor that no page of the owner ended with."""
    return ValidationFailed({"cursor": ["Is unknown; start with the first page."]})
