"""Accepting a job: its idempotency key, its input images, its row, and a place in the queue."""

import asyncio
from dataclasses import dataclass

from service import errors
from service.access.allowance import Charge
from service.core.outcome import Outcome
from service.jobs.dispatch.dispatcher import Dispatcher
from service.jobs.durable import disk_space
from service.jobs.durable.key_locks import KeyLocks
from service.jobs.durable.live_job import Durability, LiveJob, Terms
from service.jobs.durable.recorder import JobRecorder
from service.jobs.durable.result_writer import ResultWriter
from service.jobs.inputs.of_jobs import JobInputs
from service.jobs.job import JobState
from service.jobs.store.stored import StoredJob
from service.telemetry.metrics import Metrics


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """The job that a request got."""

    stored: StoredJob
    live: LiveJob | None
    """None where it was over before it was submitted again."""
    replayed: bool = False
    """Whether it is that of an earlier request with the same idempotency key."""


class Acceptance:
    """Takes jobs in; without a ``writer`` no job is durable."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        recorder: JobRecorder,
        writer: ResultWriter | None,
        inputs: JobInputs,
        metrics: Metrics,
    ) -> None:
        self._dispatcher, self._recorder, self._writer = dispatcher, recorder, writer
        self._inputs, self._metrics = inputs, metrics
        self._live = recorder.live
        self._locks = KeyLocks()

    async def accept(self, live: LiveJob, terms: Terms) -> Accepted:
        """Take a new job in, or return the earlier one; raises as ``JobService.submit`` does."""
        new, waits = live.stored, not live.promised
        while True:
            async with self._locks.of(new):
                earlier = await self._earlier(new, waits=waits)
                if earlier is None:
                    await self._keep(live, terms)
                    return Accepted(stored=new, live=live)
                found = self._live.get(earlier.id)
                if found is None or not (found.job.error and (waits or not found.promised)):
                    self._share(found, waits=waits)
                    return Accepted(stored=earlier, live=found, replayed=True)
            if found.job.error and found.job.outcome is Outcome.SHUT_DOWN:
                raise found.job.error
            # It is over without images, which the disk is about to know.
            await found.settled.wait()

    def enter(self, live: LiveJob, charge: Charge | None) -> None:
        """Follow a job from now on."""
        live.job.charge = charge
        live.job.inputs = self._inputs.source(live.job)
        if charge is not None:
            charge.with_job = live.durable
        self._live[live.job.id] = live

    async def forget_key(self, stored: StoredJob) -> None:
        """Free the idempotency key of a job that is over."""
        await self.kept.store.release(stored.id)

    @property
    def kept(self) -> ResultWriter:
        """What keeps durable jobs; raises JobsOff where nothing does."""
        if self._writer is None:
            raise errors.JobsOff(
                "Set DATA_DIR to a folder to keep jobs in; or use POST /generate without"
                " Idempotency-Key."
            )
        return self._writer

    async def _earlier(self, stored: StoredJob, *, waits: bool) -> StoredJob | None:
        """Return the job that an idempotency key stands for."""
        if stored.idempotency_key is None:
            return None
        earlier = await self.kept.store.find(stored.owner, stored.idempotency_key)
        if earlier is None:
            return None
        if not stored.repeats(earlier):
            raise errors.IdempotencyConflict(
                "This Idempotency-Key was used for another request; send a new key for a new "
                "request."
            )
        if waits and earlier.final and earlier.state is not JobState.SUCCEEDED:
            await self.forget_key(earlier)
            return None
        return earlier

    async def _keep(self, live: LiveJob, terms: Terms) -> None:
        """Take a job in with its images, which are there before the engine or a row asks."""
        await self._inputs.keep(live.job, terms.uploads, durable=live.durable)
        try:
            await self._take(live, terms)
        except BaseException:
            self._inputs.drop(live.job)
            raise

    async def _take(self, live: LiveJob, terms: Terms) -> None:
        job, writer = live.job, self.kept if live.durable else None
        if writer is not None:
            await disk_space.demand(job, writer, self._live.values(), self._metrics)
        # Before it is handed in: a job that bypasses a full batch begins within the call.
        self.enter(live, terms.charge())
        try:
            self._dispatcher.submit(job)
        except BaseException:
            self._forget(live)
            raise
        if writer is not None:
            await self._write_down(live, writer)
        if live.promised:
            self._recorder.watch_deadline(live)

    async def _write_down(self, live: LiveJob, writer: ResultWriter) -> None:
        try:  # It comes to the disk before its begin, whose task has not run yet.
            await writer.store.add(live.stored)
        except BaseException as error:
            gone = error if isinstance(error, errors.ServiceError) else errors.ServiceError()
            if isinstance(error, asyncio.CancelledError):
                gone = errors.ShuttingDown()
            self._forget(live)
            self._dispatcher.cancel(live.job, gone)
            raise

    def _forget(self, live: LiveJob) -> None:
        """Undo the acceptance of a job whose client gets an error."""
        self._live.pop(live.job.id, None)
        if live.job.charge is not None:
            live.job.charge.give_back()

    def _share(self, live: LiveJob | None, *, waits: bool) -> None:
        if live is None:
            return
        if waits:
            live.clients += 1
        elif not live.promised:
            live.durability = Durability.PROMISED
            self._recorder.watch_deadline(live)
