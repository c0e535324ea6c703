"""One life of a job: submit it, then wait for it, watch it or cancel it."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Self

import structlog

from service import errors
from service.access.allowance import Charge
from service.core.events import JobFinished
from service.core.spec import GenerationSpec
from service.images.encoded import Encoded
from service.jobs import record
from service.jobs.dispatch.dispatcher import Dispatcher
from service.jobs.durable.acceptance import Acceptance, Accepted
from service.jobs.durable.event_log import JobEvent
from service.jobs.durable.live_job import Durability, LiveJob, Terms, job_of, last_event, new_job
from service.jobs.durable.recorder import JobRecorder
from service.jobs.durable.result_writer import OfSpans, ResultWriter
from service.jobs.inputs.of_jobs import JobInputs
from service.jobs.job import Job, JobState
from service.jobs.store.stored import Page, StoredJob
from service.telemetry.metrics import Metrics

log = structlog.get_logger(__name__)


class JobService:
    """Takes jobs in, follows them to their end, and answers for them.

    A durable job is over when its images and its row are on the disk, and not before: until
    then a restart runs it again. Without a ``writer`` no job is durable.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        metrics: Metrics,
        inputs: JobInputs,
        *,
        spans: OfSpans = lambda: None,
        writer: ResultWriter | None = None,
    ) -> None:
        self.dispatcher, self._metrics = dispatcher, metrics
        self._inputs, self._writer = inputs, writer
        self._recorder = JobRecorder(dispatcher, writer, inputs, metrics, spans=spans)
        self.live = self._recorder.live
        self._acceptance = Acceptance(dispatcher, self._recorder, writer, inputs, metrics)
        self.closing = asyncio.Event()
        """Set when the service ends: durable jobs that are not over go on after a restart."""

    async def open(
        self, unfinished: Sequence[StoredJob], charges: Mapping[str, Charge], *, max_attempts: int
    ) -> None:
        """Take up what an earlier process accepted and did not finish, in its order.

        ``charges`` are what their owners were charged, by the id of the job.
        """
        for stored in unfinished:
            job = job_of(stored, charges.get(stored.id))
            if not stored.complete:
                job.fail(
                    errors.GenerationFailed("Another version of the service accepted the job.")
                )
            elif not self.dispatcher.models.knows(stored.request.model):
                job.fail(errors.ModelNotFound(f"The model {stored.request.model} was removed."))
            elif stored.attempts >= max_attempts:
                ends = f"The engine or the service ended {stored.attempts} times"
                job.fail(errors.EngineCrashed(f"{ends} while it ran this job."))
            else:
                self._restore(job, stored)
                continue
            record.given_up(self._metrics, job)
            self._kept.on_finished(await self._kept.write(stored, job))

    async def close(self) -> None:
        """Wait until every known end is on the disk; call it after the dispatcher's stop."""
        for live in self.live.values():
            if live.deadline is not None:
                live.deadline.cancel()
        await self._kept.close()
        await self._inputs.close()

    async def submit(
        self, spec: GenerationSpec, owner: str, durability: Durability, terms: Terms | None = None
    ) -> "JobHandle":
        """Take a job in: when this returns it will be run, and is on the disk if it is durable.

        With an idempotency key that the owner used before the handle is that of the earlier
        job; one that ended without images counts for those only who were promised its id.

        Raises:
            QueueFull, ShuttingDown, ModelUnavailable, EngineUnavailable, ClusterUnreachable,
                OutOfMemory: as the dispatcher refuses.
            QuotaExceeded: as ``terms.charge`` does.
            IdempotencyConflict: the idempotency key was used for another request.
            JobsOff: nothing is kept here, so no job is durable.
            StorageFull, StorageUnavailable: its images, or those it brought, could not be kept.
            StoreUnavailable: it cannot be written down, and was not accepted.

        """
        terms = terms or Terms()
        live = new_job(spec, owner, durability, terms)
        # A client that hangs up now must not leave a job in the queue without a row, nor
        # take its images away.
        for upload in terms.uploads.values():
            upload.claim()
        accepting = asyncio.ensure_future(self._acceptance.accept(live, terms))
        accepting.add_done_callback(lambda _: _release(terms))
        handle = partial(JobHandle, jobs=self, terms=terms, waits=not live.promised)
        try:
            accepted = await asyncio.shield(accepting)
        except asyncio.CancelledError:
            accepting.add_done_callback(lambda done: _leave(done, handle))
            raise
        return handle(**vars(accepted))

    async def forget_key(self, stored: StoredJob) -> None:
        """Free the idempotency key of a job that is over."""
        await self._acceptance.forget_key(stored)

    async def get(self, job_id: str, owner: str) -> tuple[StoredJob, LiveJob | None]:
        """Return the row of an owner's job and, while it is not over, the job itself.

        An id that no job has may be that of the request that submitted one that is not over.

        Raises:
            NotFound, JobExpired: as the store says.
            JobsOff: nothing is kept here, and no such job is in memory.

        """
        live = self.live.get(job_id)
        if live is not None and live.job.owner == owner and not live.durable:
            return live.row, live
        try:
            stored = await self._kept.store.get(job_id, owner)
        except (errors.NotFound, errors.JobsOff):
            mine = (each for each in self.live.values() if each.job.owner == owner)
            same = next((each for each in mine if each.job.request_id == job_id), None)
            if same is None:
                raise
            return same.row, same
        return stored, None if stored.final else live

    async def page(
        self, owner: str, *, state: JobState | None, cursor: str | None, limit: int
    ) -> Page:
        """Return durable jobs of the owner, the newest first."""
        return await self._kept.store.page(owner, state=state, cursor=cursor, limit=limit)

    async def cancel(self, job_id: str, owner: str) -> StoredJob:
        """End a job of the owner that is not over, and return it; raises what ``get`` raises."""
        stored, live = await self.get(job_id, owner)
        if live is None:
            return stored
        self.dispatcher.cancel(live.job, errors.Cancelled("The job was cancelled by its owner."))
        await live.settled.wait()
        return (await self.get(live.job.id, owner))[0] if live.durable else live.stored

    async def remove(self, owner: str) -> int:
        """Remove all jobs of an owner with their images, and return how many; some may run.

        Those that are not over are cancelled first. Jobs that are submitted meanwhile stay.

        Raises:
            ShuttingDown: the service ends; ask again after its start.
            StoreUnavailable, StorageUnavailable: not all of it is removed; ask again.

        """
        if self.dispatcher.admission.draining:
            raise errors.ShuttingDown("Ask again after the restart; nothing was removed.")
        mine = [live for live in self.live.values() if live.job.owner == owner]
        removed = errors.Cancelled("The job was removed with all jobs of its key.")
        for live in mine:
            self.dispatcher.cancel(live.job, removed)
        for live in mine:
            await live.settled.wait()
        gone = await self._writer.remove(owner) if self._writer is not None else []
        log.info("jobs_removed", key=owner, jobs=len(ids := {*gone, *(e.job.id for e in mine)}))
        return len(ids)

    async def interrupt(self, job_id: str, owner: str) -> tuple[StoredJob, LiveJob | None]:
        """End a job of the owner early: it succeeds with the images that it has by then.

        A job that waits is cancelled; one that is over stays as it is. Return the job as it is
        now, as ``get`` does; raises what ``get`` raises.
        """
        stored, live = await self.get(job_id, owner)
        if live is None:
            return stored, None
        self.dispatcher.interrupt(live.job)
        if live.job.final:  # It waited.
            await live.settled.wait()
            return live.stored, None
        return stored, live

    async def image(self, stored: StoredJob, index: int) -> Encoded:
        """Return one image of a durable job that succeeded.

        Raises:
            JobExpired, ResultDamaged, StorageUnavailable: as the results say.

        """
        request = stored.request
        # A job that was interrupted in its first pass has images of that.
        first = {(request.width, request.height)} if request.hires else set()
        sizes = {request.output_size, *first}
        return await self._kept.results.read(stored.id, index, sizes, owner=stored.owner)

    async def kept_image(self, job_id: str, index: int, reader: str) -> Encoded:
        """Return an image for a reader who was given it, whoever owns the job.

        Raises:
            NotFound, JobExpired, ResultDamaged, StorageUnavailable: as the results say.
            JobsOff: nothing is kept here.

        """
        return await self._kept.results.read(job_id, index, owner=reader)

    async def events(
        self, job: LiveJob | StoredJob, seen: str = "", *, previews: bool = False
    ) -> AsyncGenerator[JobEvent, None]:
        """Follow a job from the event ``seen`` on; with ``previews`` the engine makes some.

        The last event is all there is of a job that is over.
        """
        if isinstance(job, StoredJob):
            yield last_event(job)
            return
        live = job
        self.show(live)
        events = live.events.after(seen, previews=previews)
        if previews and not live.events.viewers:
            self.dispatcher.preview(live.job, wanted=True)
        try:
            async for event in events:
                yield event
        finally:
            await events.aclose()
            if previews and not live.events.viewers:
                self.dispatcher.preview(live.job, wanted=False)

    def show(self, live: LiveJob) -> JobEvent | None:
        """Return the newest event of a job, which is its position while it waits."""
        self._recorder.positions.refresh(live)
        return live.events.newest

    def _restore(self, job: Job, stored: StoredJob) -> None:
        context = self._kept.resumed(job.trace_id)
        self._acceptance.enter(live := LiveJob(job, stored, context=context), job.charge)
        if stored.state is JobState.RUNNING:  # In a process that is gone.
            self._kept.later(self._kept.store.requeue(job.id, job.epoch))
        self.dispatcher.restore(job, ran=stored.state is JobState.RUNNING)
        self._recorder.watch_deadline(live)

    @property
    def _kept(self) -> ResultWriter:
        return self._acceptance.kept


@dataclass(eq=False, kw_only=True)
class JobHandle:
    """A job as its client has it; as a context manager the client is gone at the end."""

    jobs: JobService
    stored: StoredJob
    live: LiveJob | None
    """None where the job was over before it was submitted again."""
    terms: Terms
    waits: bool
    """Whether the job may end when this client is gone."""
    replayed: bool = False
    """Whether the job is that of an earlier request with the same idempotency key."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Cancel the job of the last client that waited for it, unless it was promised."""
        if self.live is None or not self.waits:
            return
        self.live.clients -= 1
        if not self.live.clients and not self.live.promised:
            self.cancel(self.terms.gone())

    @property
    def finished(self) -> tuple[Job, JobFinished] | None:
        """The job and its images, where they are in memory and not on the disk."""
        if self.live is None or self.live.durable or self.live.job.result is None:
            return None
        return self.live.job, self.live.job.result

    async def wait(self) -> StoredJob:
        """Wait for the end and return the last row.

        Raises:
            ServiceError: the job ended without images.

        """
        if self.live is not None:
            await self.live.job.wait()
            await self.live.settled.wait()
            self.stored = self.live.stored
        elif not self.stored.final:  # It ended while it was looked up.
            self.stored, _ = await self.jobs.get(self.stored.id, self.stored.owner)
        if not self.stored.final:
            raise errors.ServiceError("The result of the job could not be stored.")
        if self.stored.error_code:
            raise errors.error_of(self.stored.error_code, self.stored.error_detail)
        return self.stored

    def events(self, seen: str = "", *, previews: bool = False) -> AsyncGenerator[JobEvent, None]:
        """Follow the job from the event ``seen`` on."""
        return self.jobs.events(self.live or self.stored, seen, previews=previews)

    def interrupt(self) -> None:
        """End the job early, with the images that it has by then; without any where it waits."""
        if self.live is not None:
            self.jobs.dispatcher.interrupt(self.live.job)

    def cancel(self, error: errors.ServiceError) -> None:
        """End the job, unless it is over, with ``error`` as the reason."""
        if self.live is not None:
            self.jobs.dispatcher.cancel(self.live.job, error)


def _leave(accepting: "asyncio.Future[Accepted]", handle: Callable[..., JobHandle]) -> None:
    """Leave a job whose client was gone before it was accepted."""
    if not accepting.cancelled() and accepting.exception() is None:
        with handle(**vars(accepting.result())):
            pass


def _release(terms: Terms) -> None:
    for upload in terms.uploads.values():
        upload.release()
