"""Ends of jobs on the disk: images first, then the row that says so."""

import asyncio
import time
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import nullcontext
from contextvars import Context, copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import structlog

from service.core.events import JobFinished
from service.core.outcome import Outcome
from service.core.spec import GenerationSpec
from service.core.stage import Stage
from service.errors import GenerationFailed, JobExpired, ServiceError, StoreUnavailable
from service.images.encoded import Encoded
from service.jobs import record
from service.jobs.durable.live_job import LiveJob, last_row
from service.jobs.inputs.of_jobs import JobInputs
from service.jobs.job import Job
from service.jobs.results.base import ResultStore
from service.jobs.store.base import JobEnd, JobStore
from service.jobs.store.stored import StoredJob
from service.system.executors import IMAGES
from service.telemetry.exemplars import exemplar
from service.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from service.telemetry.spans import Spans  # It needs the extra.

log = structlog.get_logger(__name__)

RETRY_SECONDS: Final = 1.0
"""Between two tries to write down an end, while the disk does not take it."""

CLOSE_SECONDS: Final = 10.0
BY_ATTEMPT: Final = (Outcome.SUCCEEDED, Outcome.FAILED)
"""Ends that the attempt brings about; all others belong to none."""

Encode = Callable[[JobFinished, GenerationSpec, Mapping[str, Any]], Sequence[Encoded]]
Describe = Callable[[Job, JobFinished], dict[str, Any]]
OfSpans = Callable[[], "Spans | None"]
OnFinished = Callable[[StoredJob], None]


class ResultWriter:
    """Writes ends down, however long the disk does not take them.

    ``encode`` turns images into files (in a thread), ``describe`` returns the metadata of
    answers, ``spans`` returns what exports traces, if anything does. ``on_finished`` is called
    with each last row, ``on_removed`` with the ids of jobs that are removed.
    """

    def __init__(
        self,
        store: JobStore,
        results: ResultStore,
        inputs: JobInputs,
        metrics: Metrics,
        *,
        encode: Encode,
        describe: Describe,
        spans: OfSpans,
        on_finished: OnFinished,
        on_removed: Callable[[Collection[str]], None],
    ) -> None:
        self.store, self.results, self._metrics = store, results, metrics
        self._inputs = inputs
        self.on_finished, self._on_removed = on_finished, on_removed
        self._encode, self._describe, self._spans = encode, describe, spans
        self._tasks: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Wait until every end that is known is on the disk, for a while."""
        if not self._tasks:
            return
        # A disk that takes nothing must not hold up the end: such a job is run again instead.
        _, late = await asyncio.wait(self._tasks, timeout=CLOSE_SECONDS)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    def later(self, work: Coroutine[Any, Any, Any], context: Context | None = None) -> None:
        """Do it in the background; ``close`` waits for it."""
        task = asyncio.get_running_loop().create_task(work, context=context)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def resumed(self, trace_id: str) -> Context:
        """Return the context of a job of an earlier process: its trace goes on."""
        context = copy_context()
        if trace_id and (spans := self._spans()):
            context.run(spans.resume, trace_id)
        return context

    async def end(self, live: LiveJob) -> StoredJob:
        """Keep what came of a job, and return its last row."""
        job = live.job
        metadata = await self._kept(job, job.result) if job.result is not None else None
        if spans := self._spans():
            spans.job(job)
        # Nobody was told its id: such an end is no answer to whoever sends the request again.
        forget_key = job.error is not None and not live.promised
        return await self.write(live.stored, job, metadata, forget_key=forget_key)

    async def write(
        self,
        stored: StoredJob,
        job: Job,
        metadata: Mapping[str, Any] | None = None,
        *,
        forget_key: bool = False,
    ) -> StoredJob:
        """Write the end of a job down, and return the row."""
        while True:
            try:
                end = JobEnd(
                    state=job.state,
                    epoch=job.epoch if job.outcome in BY_ATTEMPT else None,
                    error=job.error,
                    steps_done=job.steps_done,
                    metadata=metadata,
                    model_version=job.model_version,
                    paid=job.charge.owed if job.charge else 0,
                    forget_key=forget_key,
                )
                await self.store.finish(stored.id, end)
                return await self.store.get(stored.id, stored.owner)
            except JobExpired:
                # The sweep was faster: who waits gets the end all the same.
                return last_row(stored, job, metadata)
            except StoreUnavailable as failure:
                log.warning("job_end_not_stored", job_id=stored.id, reason=failure.detail)
                await asyncio.sleep(RETRY_SECONDS)

    async def remove(self, owner: str) -> list[str]:
        """Remove the jobs of an owner that are over, with all that they have; return their ids."""
        gone = await self.store.remove(owner)
        self._on_removed(gone)
        for job_id in gone:
            await self.results.delete(job_id)
            await self._inputs.store.delete(job_id)
        return gone

    async def hand_back(self, job: Job) -> None:
        """Let the next process run a job that this one stops, as if it had not begun."""
        while True:
            try:
                await self.store.hand_back(job.id, job.epoch)
            except StoreUnavailable as failure:
                log.warning("job_not_handed_back", job_id=job.id, reason=failure.detail)
                await asyncio.sleep(RETRY_SECONDS)
            else:
                return

    async def _kept(self, job: Job, result: JobFinished) -> Mapping[str, Any] | None:
        """Keep the images of a job and end it, as that went; return what answers say of them."""
        metadata: dict[str, Any] | None = None
        try:
            metadata = self._describe(job, result)
            await self._keep(job, result, metadata)
        except Exception as failure:
            # Whatever it is, the job must end: else its watchers wait for ever.
            metadata, error = None, GenerationFailed("The images could not be kept.")
            if not isinstance(failure, ServiceError):
                log.exception("job_not_kept", job_id=job.id)
            job.fail(failure if isinstance(failure, ServiceError) else error)
        else:
            job.succeed()
        record.used(self._metrics, job, result.times)
        record.ended(self._metrics, job)
        return metadata

    async def _keep(self, job: Job, result: JobFinished, metadata: Mapping[str, Any]) -> None:
        spans = self._spans()
        started = time.monotonic()
        with spans.stage(Stage.IMAGE_ENCODE) if spans else nullcontext():
            encode = partial(self._encoded, job, result, metadata)
            images = await IMAGES.run_for(job.owner, encode)
        self._metrics.engine(job.engine).stage_duration(Stage.IMAGE_ENCODE).observe(
            time.monotonic() - started, exemplar(job.request_id, job.trace_id)
        )
        with spans.stage("image_store") if spans else nullcontext():
            await self.results.write(job.id, images, metadata)

    def _encoded(
        self, job: Job, result: JobFinished, metadata: Mapping[str, Any]
    ) -> Sequence[Encoded]:
        return self._encode(self._inputs.pasted(job, result), job.request, metadata)

    def _done(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("job_record_failed", exc_info=error)
