"""Job store in memory: the twin of SQLite's that tests run against."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

from service.core.outcome import Delivery, DeliveryState
from service.core.spec import GenerationSpec
from service.jobs.job import JobState
from service.jobs.store.base import JobEnd, JobStore, StoreFigures, Used, missing, unknown_cursor
from service.jobs.store.clock import SteadyClock
from service.jobs.store.stored import Page, StoredJob

WIPED: Final[Mapping[str, Any]] = {
    "request": GenerationSpec(prompt=""),
    "metadata": None,
    "error_detail": "",
    "idempotency_key": None,
    "idempotency_digest": "",
    "webhook": None,
    "delivery": None,
}
"""Of a job that expired: no prompt and no address are left."""


class MemoryStore(JobStore):
    """Job store in dictionaries."""

    def __init__(self, *, clock: Callable[[], float] | None = None) -> None:
        self._clock = clock or SteadyClock()
        self._jobs: dict[str, StoredJob] = {}
        """All of them by id, in the order of acceptance, those that expired without content."""
        self._expired: dict[str, float] = {}
        """When jobs expired, by id."""
        self._usage: Counter[tuple[str, int]] = Counter()

    async def open(self) -> None:
        return

    async def close(self) -> None:
        return

    async def check(self) -> None:
        return

    async def add(self, job: StoredJob) -> StoredJob:
        earlier = job.idempotency_key and await self.find(job.owner, job.idempotency_key)
        if earlier:
            return earlier
        if job.id in self._jobs:
            raise ValueError(f"There is a job {job.id} already.")
        delivery = job.delivery or (Delivery() if job.webhook else None)
        self._jobs[job.id] = replace(job, delivery=delivery)
        return job

    async def find(self, owner: str, idempotency_key: str) -> StoredJob | None:
        wanted = (owner, idempotency_key)
        return next((e for e in self._kept() if (e.owner, e.idempotency_key) == wanted), None)

    async def begin(self, job_id: str, epoch: int) -> bool:
        if (job := self._open(job_id)) is None or epoch <= job.epoch:
            return False
        values = {"attempts": job.attempts + 1, "steps_done": 0, "started_at": self._clock()}
        return self._put(job, state=JobState.RUNNING, epoch=epoch, **values)

    async def resume(self, job_id: str, epoch: int) -> bool:
        if (job := self._open(job_id)) is None or epoch < job.epoch:
            return False
        attempts = job.attempts + (epoch > job.epoch)
        values = {"epoch": epoch, "attempts": attempts, "started_at": self._clock()}
        return self._put(job, state=JobState.RUNNING, **values)

    async def requeue(self, job_id: str, epoch: int) -> bool:
        if (job := self._open(job_id, epoch)) is None:
            return False
        return self._put(job, state=JobState.QUEUED, epoch=epoch, steps_done=0, started_at=None)

    async def hand_back(self, job_id: str, epoch: int) -> bool:
        job = self._open(job_id, epoch)
        if job is not None and job.state is JobState.RUNNING:
            self._put(job, attempts=job.attempts - 1)
        return await self.requeue(job_id, epoch)

    async def finish(self, job_id: str, end: JobEnd) -> bool:
        if (job := self._open(job_id, end.epoch)) is None:
            return False
        self._put(
            job,
            state=end.state,
            finished_at=self._clock(),
            error_code=end.error.code if end.error else "",
            error_detail=end.error.detail if end.error else "",
            steps_done=end.steps_done,
            metadata=json.loads(json.dumps(end.metadata)),
            model_version=end.model_version,
        )
        if end.paid:
            self._usage[job.owner, int(job.created_at / 60)] += end.paid
        return await self.release(job_id) if end.forget_key else True

    async def release(self, job_id: str) -> bool:
        job = self._jobs.get(job_id)
        if job is None or not job.final:
            return False
        return self._put(job, idempotency_key=None, idempotency_digest="")

    async def deliver(self, job_id: str, delivery: Delivery) -> bool:
        job = self._jobs.get(job_id)
        if job is None or job.webhook is None:
            return False
        return self._put(job, delivery=delivery)

    async def get(self, job_id: str, owner: str) -> StoredJob:
        job = self._jobs.get(job_id)
        mine = job is not None and job.owner == owner
        if job is None or not mine or job_id in self._expired:
            raise missing(expired=mine)
        return job

    async def page(
        self, owner: str, *, state: JobState | None = None, cursor: str | None = None, limit: int
    ) -> Page:
        mine = [job for job in reversed(self._jobs.values()) if job.owner == owner]
        if cursor is not None:
            ids = [job.id for job in mine]
            if cursor not in ids:
                raise unknown_cursor()
            mine = mine[ids.index(cursor) + 1 :]
        found = [job for job in mine if job.id not in self._expired and state in (None, job.state)]
        jobs = tuple(found[:limit])
        return Page(jobs=jobs, cursor=jobs[-1].id if len(found) > limit and jobs else None)

    async def unfinished(self) -> list[StoredJob]:
        return [job for job in self._kept() if not job.final]

    async def undelivered(self) -> list[StoredJob]:
        return [job for job in self._kept() if job.final and _pending(job)]

    async def set_aside(self) -> int:
        return 0

    async def with_images(self) -> frozenset[str]:
        states = (JobState.QUEUED, JobState.RUNNING, JobState.SUCCEEDED)
        return frozenset(job.id for job in self._kept() if job.state in states)

    async def expire(
        self, *, max_age_seconds: float | None = None, ids: Iterable[str] = ()
    ) -> list[str]:
        age = float("inf") if max_age_seconds is None else max_age_seconds
        over = {job.id: job for job in self._kept() if job.final}
        old = [job.id for job in over.values() if self._older(job, age)]
        return self._forget(over[each] for each in dict.fromkeys((*ids, *old)) if each in over)

    async def expire_without_images(self, *, max_age_seconds: float, most: int) -> int:
        states = (JobState.FAILED, JobState.CANCELLED)
        ended = [job for job in self._kept() if job.state in states and not _pending(job)]
        newest: Counter[str] = Counter()
        ranks = {}
        for job in reversed(ended):  # Each owner's newest is first, whoever has how many.
            newest[job.owner] += 1
            ranks[job.id] = newest[job.owner]
        young = [job for job in reversed(ended) if not self._older(job, max_age_seconds)]
        kept = {job.id for job in sorted(young, key=lambda job: ranks[job.id])[:most]}
        return len(self._forget(job for job in ended if job.id not in kept))

    async def purge(self, max_age_seconds: float, *, most: int) -> int:
        before = self._clock() - max_age_seconds
        latest = [each for each in reversed(self._jobs) if each in self._expired]
        latest.sort(key=self._expired.__getitem__, reverse=True)
        gone = [each for n, each in enumerate(latest) if n >= most or self._expired[each] < before]
        for each in gone:
            del self._jobs[each], self._expired[each]
        return len(gone)

    async def remove(self, owner: str, *, unfinished: bool = False) -> list[str]:
        mine = [job for job in self._jobs.values() if job.owner == owner]
        gone = [job.id for job in mine if job.final or unfinished]
        for each in gone:
            del self._jobs[each]
            self._expired.pop(each, None)
        return gone

    async def counts(self, owner: str | None = None) -> Mapping[JobState, int]:
        found = Counter(job.state for job in self._kept() if owner in (None, job.owner))
        return {state: found[state] for state in JobState}

    async def figures(self) -> StoreFigures:
        ends = [job.finished_at for job in await self.undelivered() if job.finished_at is not None]
        since = min(ends, default=None)
        return StoreFigures(undelivered=len(ends), undelivered_since=since, set_aside=0)

    async def add_usage(self, used: Iterable[Used]) -> None:
        for owner, minute, images in used:
            self._usage[owner, minute] += images

    async def usage(self, since_minute: int) -> list[Used]:
        self._usage = Counter({of: n for of, n in self._usage.items() if of[1] >= since_minute})
        return [Used(*of, images) for of, images in sorted(self._usage.items())]

    def _kept(self) -> list[StoredJob]:
        return [job for job in self._jobs.values() if job.id not in self._expired]

    def _older(self, job: StoredJob, seconds: float) -> bool:
        return job.finished_at is not None and job.finished_at < self._clock() - seconds

    def _open(self, job_id: str, epoch: int | None = None) -> StoredJob | None:
        """Return a job that is not over, None where a later attempt than ``epoch`` has begun."""
        job = self._jobs.get(job_id)
        late = job is None or (epoch is not None and epoch < job.epoch)
        return None if late or job is None or job.final else job

    def _put(self, job: StoredJob, **values: Any) -> bool:
        self._jobs[job.id] = replace(job, **values)
        return True

    def _forget(self, jobs: Iterable[StoredJob]) -> list[str]:
        """Leave the ids of jobs, their owners and their places, and return the ids."""
        gone = list(jobs)
        for job in gone:
            self._expired[job.id] = self._clock()
            self._put(job, **WIPED)
        return [job.id for job in gone]


def _pending(job: StoredJob) -> bool:
    return job.delivery is not None and job.delivery.state is DeliveryState.PENDING
