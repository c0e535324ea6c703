"""The jobs that outlive their connection: accepted on the disk, finished on the disk."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import structlog

from service.diffusion.generation import GenerationRequest, JobFinished
from service.errors import (
    Cancelled,
    EngineCrashed,
    GenerationFailed,
    IdempotencyConflict,
    RequestTimedOut,
    ServiceError,
    ShuttingDown,
    StoreUnavailable,
)
from service.jobs.consumer import Consumer
from service.jobs.events import EventLog, JobEvent
from service.jobs.job import Job, JobState
from service.jobs.results import Encoded, Results
from service.jobs.store import JobStore
from service.jobs.stored import Page, StoredJob

log = structlog.get_logger(__name__)

RETRY_SECONDS: Final = 1.0
"""Between two tries to write down an end, while the disk does not take it."""

CLOSE_SECONDS: Final = 10.0

Encode = Callable[[JobFinished, GenerationRequest, Mapping[str, Any]], Sequence[Encoded]]
Describe = Callable[[Job, JobFinished], dict[str, Any]]
Told = Callable[[StoredJob], None]


@dataclass(eq=False)
class Entry:
    """A job that is not over on the disk."""

    job: Job
    stored: StoredJob
    events: EventLog = field(default_factory=EventLog)
    settled: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when its end is on the disk."""
    deadline: asyncio.TimerHandle | None = None


class Book:
    """Accepts durable jobs, follows them through the consumer, and writes down their end.

    A job is over when its pictures and its row are on the disk, and not before: until then a
    restart runs it again. ``encode`` turns pictures into files (in a thread), ``describe``
    says what answers say beside them, ``told`` hears of each end that was written down.
    """

    def __init__(
        self,
        consumer: Consumer,
        store: JobStore,
        results: Results,
        *,
        encode: Encode,
        describe: Describe,
        told: Told,
        max_attempts: int,
    ) -> None:
        self._consumer = consumer
        self._store, self._results = store, results
        self._encode, self._describe, self._told = encode, describe, told
        self._max_attempts = max_attempts
        self._entries: dict[str, Entry] = {}
        self._endings: set[asyncio.Task[None]] = set()
        self._accepting = asyncio.Lock()
        self.closing = asyncio.Event()
        """Set when the service ends: what is not over goes on after a restart."""
        consumer.observer = self

    async def open(self) -> None:
        """Take up what an earlier process accepted and did not finish, in its order."""
        for stored in await self._store.unfinished():
            if not stored.complete:
                await self._close(stored, GenerationFailed("Another version accepted it."))
            elif stored.attempts >= self._max_attempts:
                await self._close(
                    stored,
                    EngineCrashed(f"Engine or service ended {stored.attempts} times with it."),
                )
            else:
                self._restore(stored)

    async def close(self) -> None:
        """Wait until every end that is known is on the disk; call it after the consumer's stop."""
        for entry in self._entries.values():
            if entry.deadline is not None:
                entry.deadline.cancel()
        if not self._endings:
            return
        # A disk that takes nothing must not hold up the end: such a job is run again instead.
        _, late = await asyncio.wait(self._endings, timeout=CLOSE_SECONDS)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    async def accept(self, job: Job, stored: StoredJob) -> StoredJob:
        """Take a job in: when this returns it is on the disk and will be run.

        Returns the row that stands for it: an earlier one where the same request was sent with
        the same idempotency key before.

        Raises:
            QueueFull, ShuttingDown, ModelUnavailable: as the consumer refuses it.
            IdempotencyConflict: the idempotency key was used for another request.
            StoreUnavailable: it cannot be written down, and was not accepted.

        """
        # A client that hangs up now must not leave a job in the queue without a row.
        return await asyncio.shield(asyncio.ensure_future(self._accept(job, stored)))

    async def _accept(self, job: Job, stored: StoredJob) -> StoredJob:
        async with self._accepting:  # Of two requests with one idempotency key one is first.
            if stored.idempotency_key is not None:
                earlier = await self._store.find(stored.key, stored.idempotency_key)
                if earlier is not None:
                    return _same(earlier, stored)
            entry = Entry(job, stored)
            self._entries[job.id] = entry
            try:
                self._consumer.submit(job)
                await self._store.add(stored)
            except ServiceError as error:
                self._entries.pop(job.id, None)
                self._consumer.cancel(job, error)
                raise
        self._watch_deadline(entry)
        self._say_queued(entry)
        return stored

    def entry(self, job_id: str) -> Entry | None:
        """Return what is known of a job that is not over."""
        return self._entries.get(job_id)

    async def get(self, job_id: str, key: str) -> tuple[StoredJob, Entry | None]:
        """Return a job of the key, and its entry while it is not over.

        Raises:
            NotFound, JobExpired: as the store says.

        """
        entry = self._entries.get(job_id)
        stored = await self._store.get(job_id, key)
        return stored, None if stored.final else entry

    async def page(
        self, key: str, *, state: JobState | None, cursor: str | None, limit: int
    ) -> Page:
        """Return jobs of the key, the newest first."""
        return await self._store.page(key, state=state, cursor=cursor, limit=limit)

    async def cancel(self, job_id: str, key: str) -> StoredJob:
        """End a job of the key that is not over, and return it as it is then.

        Raises:
            NotFound, JobExpired: as the store says.

        """
        stored, entry = await self.get(job_id, key)
        if entry is None:
            return stored
        self._consumer.cancel(entry.job, Cancelled("It was cancelled by its owner."))
        await entry.settled.wait()
        return (await self.get(job_id, key))[0]

    async def wait(self, job_id: str, key: str) -> StoredJob:
        """Return a job of the key when it is over."""
        stored, entry = await self.get(job_id, key)
        if entry is None:
            return stored
        await entry.settled.wait()
        return (await self.get(job_id, key))[0]

    async def picture(self, stored: StoredJob, index: int) -> Encoded:
        """Return one picture of a job that succeeded."""
        return await asyncio.to_thread(self._results.read, stored.id, index)

    def events(self, entry: Entry, seen: str = "") -> AsyncIterator[JobEvent]:
        """Follow a job from the event ``seen`` on."""
        return entry.events.after(seen)

    # What the consumer tells.

    def begun(self, job: Job) -> None:
        """Count the attempt, so that a job that ends every process is given up in the end."""
        if entry := self._entries.get(job.id):
            self._later(self._store.begin(job.id))
            entry.events.say("started", {"attempt": job.attempts})

    def stepped(self, job: Job, left_seconds: float) -> None:
        """Tell those who watch."""
        if entry := self._entries.get(job.id):
            done, steps = job.steps_done, job.request.steps
            eta = {"eta_seconds": round(left_seconds, 3)}
            entry.events.say("step", {"step": done, "steps": steps, **eta})

    def requeued(self, job: Job) -> None:
        """Note that it waits again."""
        if entry := self._entries.get(job.id):
            self._later(self._store.requeue(job.id))
            self._say_queued(entry)

    def moved(self) -> None:
        """Tell those who watch a waiting job how the line has moved."""
        for entry in self._entries.values():
            if entry.events.watchers and entry.job.state is JobState.QUEUED:
                self._say_queued(entry)

    def ended(self, job: Job) -> None:
        """Write the end down, except where a restart shall run the job again."""
        entry = self._entries.get(job.id)
        if entry is None:
            return
        if isinstance(job.error, ShuttingDown):
            entry.events.say("queued", {"position": None, "reason": "the service restarts"})
            return
        self._later(self._end(entry))

    # How ends come to the disk.

    async def _end(self, entry: Entry) -> None:
        job, error = entry.job, entry.job.error
        metadata: dict[str, Any] | None = None
        if job.result is not None:
            metadata = self._describe(job, job.result)
            try:
                pictures = await asyncio.to_thread(self._encode, job.result, job.request, metadata)
                await asyncio.to_thread(self._results.write, job.id, pictures, metadata)
            except ServiceError as failure:
                error, metadata = failure, None
            except Exception:
                # Whatever it is, the job must end: else its watchers wait for ever.
                log.exception("job_not_kept", job_id=job.id)
                error, metadata = GenerationFailed("The pictures could not be kept."), None
        state = JobState.SUCCEEDED
        if error is not None:
            state = JobState.CANCELLED if isinstance(error, Cancelled) else JobState.FAILED
        await self._written(entry.stored, state, error, job, metadata)
        if entry.deadline is not None:
            entry.deadline.cancel()
        del self._entries[job.id]
        entry.settled.set()
        kind = {JobState.SUCCEEDED: "finished", JobState.CANCELLED: "cancelled"}
        data = {} if error is None else {"code": error.code, "detail": error.detail}
        entry.events.say(kind.get(state, "failed"), {"id": job.id, **data})
        self._told(await self._store.get(job.id, entry.stored.key))

    async def _written(
        self,
        stored: StoredJob,
        state: JobState,
        error: ServiceError | None,
        job: Job | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Write an end down, however long the disk does not take it."""
        while True:
            try:
                await self._store.finish(
                    stored.id,
                    state,
                    error=error,
                    steps_done=job.steps_done if job else 0,
                    metadata=metadata,
                    model_version=job.model_version if job else "",
                )
            except StoreUnavailable as failure:
                log.warning("job_end_not_stored", job_id=stored.id, reason=failure.detail)
                await asyncio.sleep(RETRY_SECONDS)
            else:
                return

    async def _close(self, stored: StoredJob, error: ServiceError) -> None:
        await self._written(stored, JobState.FAILED, error)
        self._told(await self._store.get(stored.id, stored.key))

    def _restore(self, stored: StoredJob) -> None:
        job = Job(
            id=stored.id,
            key=stored.key,
            request=stored.request,
            request_id=stored.request_id,
            trace_id=stored.trace_id,
            attempts=stored.attempts,
        )
        entry = self._entries[job.id] = Entry(job, stored)
        self._consumer.restore(job)
        self._watch_deadline(entry)
        self._say_queued(entry)

    def _watch_deadline(self, entry: Entry) -> None:
        if entry.stored.deadline_at is None:
            return
        late = RequestTimedOut("It was not finished within the time that it was given.")
        entry.deadline = asyncio.get_running_loop().call_later(
            max(0.0, entry.stored.deadline_at - time.time()),
            lambda: self._consumer.cancel(entry.job, late),
        )

    def _say_queued(self, entry: Entry) -> None:
        place = self._consumer.position(entry.job)
        if place is None or entry.job.state is not JobState.QUEUED:
            return
        data = {"position": place.number, "start_seconds": round(place.start_seconds, 3)}
        newest = entry.events.newest
        if newest is None or newest.kind != "queued" or newest.data != data:
            entry.events.say("queued", data)

    def _later(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._endings.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: "asyncio.Task[None]") -> None:
        self._endings.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("job_record_failed", exc_info=error)


def _same(earlier: StoredJob, stored: StoredJob) -> StoredJob:
    if earlier.idempotency_digest == stored.idempotency_digest:
        return earlier
    raise IdempotencyConflict(
        "This Idempotency-Key was used for another request; take a new one for a new request."
    )
