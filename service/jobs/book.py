"""The jobs that outlive their connection: accepted on the disk, finished on the disk."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

from service.errors import (
    Cancelled,
    EngineCrashed,
    GenerationFailed,
    IdempotencyConflict,
    ServiceError,
    ShuttingDown,
    error_class,
)
from service.jobs.allowance import Charge
from service.jobs.consumer import Consumer
from service.jobs.endings import Endings
from service.jobs.entry import Entry, again
from service.jobs.events import JobEvent
from service.jobs.follower import Follower, Told
from service.jobs.job import Job, JobState
from service.jobs.results import Encoded, Results
from service.jobs.store import JobStore
from service.jobs.stored import Page, StoredJob
from service.jobs.turns import Turns

Admit = Callable[[], Charge | None]
"""Charges a new job to its key, where that is counted; raises QuotaExceeded."""

Found = tuple[StoredJob, Entry | None]
"""A row, and while the job is not over what is known beyond it."""


def _seen(taking: "asyncio.Future[Found]") -> None:
    """Take note of a refusal whose client is gone, or asyncio logs it as an error of ours."""
    if not taking.cancelled():
        taking.exception()


class Book:
    """Accepts durable jobs, follows them through the consumer, and has their end written down.

    A job is over when its pictures and its row are on the disk, and not before: until then a
    restart runs it again. ``told`` hears of each end that was written down.
    """

    def __init__(
        self,
        consumer: Consumer,
        store: JobStore,
        results: Results,
        endings: Endings,
        *,
        told: Told,
        max_attempts: int,
    ) -> None:
        self._consumer = consumer
        self._store, self._results, self._endings = store, results, endings
        self._told = told
        self._max_attempts = max_attempts
        self._follower = Follower(consumer, store, endings, told=told)
        self.entries = self._follower.entries
        """Jobs that are not over on the disk, by id."""
        self._turns = Turns()
        self.closing = asyncio.Event()
        """Set when the service ends: what is not over goes on after a restart."""

    async def open(self, unfinished: Sequence[StoredJob], charges: Mapping[str, Charge]) -> None:
        """Take up what an earlier process accepted and did not finish, in its order.

        ``charges`` are what their keys were charged, by the id of the job.
        """
        for stored in unfinished:
            charge = charges.get(stored.id)
            if not stored.complete:
                error: ServiceError = GenerationFailed("Another version accepted it.")
            elif stored.attempts >= self._max_attempts:
                error = EngineCrashed(f"Engine or service ended {stored.attempts} times with it.")
            else:
                self._restore(stored, charge)
                continue
            if charge is not None:
                charge.give_back()
            self._told(await self._endings.write(stored, error))

    async def close(self) -> None:
        """Wait until every end that is known is on the disk; call it after the consumer's stop."""
        for entry in self.entries.values():
            if entry.deadline is not None:
                entry.deadline.cancel()
        await self._endings.close()

    async def accept(self, job: Job, stored: StoredJob, admit: Admit) -> StoredJob:
        """Take a job in: when this returns it is on the disk and will be run.

        Returns the row that stands for it: an earlier one where the same request was sent with
        the same idempotency key before.

        Raises:
            QueueFull, ShuttingDown, ModelUnavailable, EngineUnavailable: as the consumer refuses.
            QuotaExceeded: as ``admit`` does.
            IdempotencyConflict: the idempotency key was used for another request.
            StoreUnavailable: it cannot be written down, and was not accepted.

        """
        # A client that hangs up now must not leave a job in the queue without a row.
        taking = asyncio.ensure_future(self._accept(job, stored, admit, waits=False))
        taking.add_done_callback(_seen)
        return (await asyncio.shield(taking))[0]

    @asynccontextmanager
    async def joined(
        self, job: Job, stored: StoredJob, admit: Admit, gone: Callable[[], ServiceError]
    ) -> AsyncIterator[Found]:
        """Take a job in for a client that waits for it, or let it wait for the earlier one.

        An earlier one that ended without pictures does not count: the request is tried again.
        When the last client leaves before the end the job is cancelled with ``gone``, unless
        somebody was promised that it will be run. Raises what ``accept`` raises.
        """
        taking = asyncio.ensure_future(self._accept(job, stored, admit, waits=True))
        try:
            yield await asyncio.shield(taking)
        finally:
            if taking.done():
                self._leave(taking, gone)
            else:  # The client is gone, and its job is just being written down.
                taking.add_done_callback(lambda _: self._leave(taking, gone))

    async def result(self, found: StoredJob, entry: Entry | None) -> StoredJob:
        """Wait for the end of a job and return its row.

        Raises:
            ServiceError: it ended without pictures.

        """
        if entry is not None:
            await entry.job.wait()
            await entry.settled.wait()
        if not found.final:
            found = await self._store.get(found.id, found.key)
        if not found.final:
            raise ServiceError("The end of the job could not be written down.")
        if found.error_code:
            raise error_class(found.error_code)(found.error_detail)
        return found

    async def forget_key(self, stored: StoredJob) -> None:
        """Let the idempotency key of a job stand for nothing any more."""
        await self._store.release(stored.id)

    async def _accept(self, job: Job, stored: StoredJob, admit: Admit, *, waits: bool) -> Found:
        while True:
            async with self._turns.of(stored):
                earlier = await self._earlier(stored, waits=waits)
                if earlier is None:
                    return stored, await self._take(job, stored, admit, waits=waits)
                entry = self.entries.get(earlier.id)
                if entry is None or not (entry.job.error and (waits or not entry.promised)):
                    self._share(entry, waits=waits)
                    return earlier, entry
            if isinstance(entry.job.error, ShuttingDown):
                raise entry.job.error
            # It is over without pictures, which the disk is about to know.
            await entry.settled.wait()

    async def _earlier(self, stored: StoredJob, *, waits: bool) -> StoredJob | None:
        """Return the job that an idempotency key stands for."""
        if stored.idempotency_key is None:
            return None
        earlier = await self._store.find(stored.key, stored.idempotency_key)
        if earlier is None:
            return None
        if earlier.idempotency_digest != stored.idempotency_digest:
            raise IdempotencyConflict(
                "This Idempotency-Key was used for another request; take a new one for a new"
                " request."
            )
        if waits and earlier.final and earlier.state is not JobState.SUCCEEDED:
            await self.forget_key(earlier)
            return None
        return earlier

    async def _take(self, job: Job, stored: StoredJob, admit: Admit, *, waits: bool) -> Entry:
        job.charge = admit()
        entry = Entry(job, stored, promised=not waits, clients=int(waits))
        # Before it is handed in: a job that slips in beside a full batch begins within the call.
        self.entries[job.id] = entry
        try:
            self._consumer.submit(job)
            try:  # It comes to the disk before its begin, whose task has not run yet.
                await self._store.add(stored)
            except BaseException as error:
                gone = error if isinstance(error, ServiceError) else ServiceError()
                self._forget(entry)
                self._consumer.cancel(job, gone)
                raise
        except BaseException:
            self._forget(entry)
            raise
        if entry.promised:
            self._follower.watch_deadline(entry)
        self._follower.say_queued(entry)
        return entry

    def _forget(self, entry: Entry) -> None:
        """Undo the acceptance of a job that its client is not going to hear of."""
        self.entries.pop(entry.job.id, None)
        if entry.job.charge is not None:
            entry.job.charge.give_back()

    def _share(self, entry: Entry | None, *, waits: bool) -> None:
        if entry is None:
            return
        if waits:
            entry.clients += 1
        elif not entry.promised:
            entry.promised = True
            self._follower.watch_deadline(entry)

    def _leave(self, taking: "asyncio.Future[Found]", gone: Callable[[], ServiceError]) -> None:
        if taking.cancelled() or taking.exception() is not None:
            return
        entry = taking.result()[1]
        if entry is None:
            return
        entry.clients -= 1
        if not entry.clients and not entry.promised:
            self._consumer.cancel(entry.job, gone())

    async def get(self, job_id: str, key: str) -> tuple[StoredJob, Entry | None]:
        """Return a job of the key, and its entry while it is not over.

        Raises:
            NotFound, JobExpired: as the store says.

        """
        entry = self.entries.get(job_id)
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
        return await self.wait(job_id, key)

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

    async def events(
        self, entry: Entry, seen: str = "", *, previews: bool = False
    ) -> AsyncGenerator[JobEvent, None]:
        """Follow a job from the event ``seen`` on; with ``previews`` the engine makes some."""
        events = entry.events.after(seen, previews=previews)
        if previews and not entry.events.viewers:
            self._consumer.preview(entry.job, wanted=True)
        try:
            async for event in events:
                yield event
        finally:
            await events.aclose()
            if previews and not entry.events.viewers:
                self._consumer.preview(entry.job, wanted=False)

    def _restore(self, stored: StoredJob, charge: Charge | None) -> None:
        job = again(stored, charge)
        entry = self.entries[job.id] = Entry(
            job, stored, context=self._endings.resumed(job.trace_id)
        )
        if stored.state is JobState.RUNNING:  # In a process that is gone.
            self._endings.later(self._store.requeue(job.id))
        self._consumer.restore(job)
        self._follower.watch_deadline(entry)
        self._follower.say_queued(entry)
