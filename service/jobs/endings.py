"""How the ends of jobs come to the disk: pictures first, then the row that says so."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import nullcontext
from contextvars import Context, copy_context
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import structlog

from service.diffusion.generation import GenerationRequest, JobFinished
from service.errors import (
    Cancelled,
    GenerationFailed,
    JobExpired,
    ServiceError,
    StoreUnavailable,
)
from service.jobs.entry import Entry
from service.jobs.job import Job, JobState
from service.jobs.results import Encoded, Results
from service.jobs.store import JobStore
from service.jobs.stored import StoredJob
from service.telemetry.exemplars import exemplar
from service.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from service.telemetry.spans import Spans  # It needs the extra.

log = structlog.get_logger(__name__)

RETRY_SECONDS: Final = 1.0
"""Between two tries to write down an end, while the disk does not take it."""

CLOSE_SECONDS: Final = 10.0

Encode = Callable[[JobFinished, GenerationRequest, Mapping[str, Any]], Sequence[Encoded]]
Describe = Callable[[Job, JobFinished], dict[str, Any]]
OfSpans = Callable[[], "Spans | None"]


class Endings:
    """Writes ends down, however long the disk does not take them.

    ``encode`` turns pictures into files (in a thread), ``describe`` says what answers say
    beside them, ``spans`` returns what exports traces, if anything does.
    """

    def __init__(
        self,
        store: JobStore,
        results: Results,
        metrics: Metrics,
        *,
        encode: Encode,
        describe: Describe,
        spans: OfSpans,
    ) -> None:
        self._store, self._results, self._metrics = store, results, metrics
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
        """Do it beside everything else; ``close`` waits for it."""
        task = asyncio.get_running_loop().create_task(work, context=context)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def resumed(self, trace_id: str) -> Context:
        """Return the context of a job of an earlier process: its trace goes on."""
        context = copy_context()
        if trace_id and (spans := self._spans()):
            context.run(spans.resume, trace_id)
        return context

    async def end(self, entry: Entry) -> StoredJob:
        """Keep what came of a job, and return its last row."""
        job, error = entry.job, entry.job.error
        if spans := self._spans():
            spans.job(job)
        metadata: dict[str, Any] | None = None
        if job.result is not None:
            try:
                metadata = self._describe(job, job.result)
                await self._keep(job, job.result, metadata)
            except Exception as failure:
                # Whatever it is, the job must end: else its watchers wait for ever.
                self._metrics.answers_failed.inc()
                metadata, error = None, GenerationFailed("The pictures could not be kept.")
                if isinstance(failure, ServiceError):
                    error = failure
                else:
                    log.exception("job_not_kept", job_id=job.id)
        # Nobody was told its id: such an end is no answer to whoever sends the request again.
        forget_key = error is not None and not entry.promised
        return await self.write(entry.stored, error, job, metadata, forget_key=forget_key)

    async def write(
        self,
        stored: StoredJob,
        error: ServiceError | None,
        job: Job | None = None,
        metadata: Mapping[str, Any] | None = None,
        *,
        forget_key: bool = False,
    ) -> StoredJob:
        """Write an end down, and return the row."""
        state = JobState.SUCCEEDED
        if error is not None:
            state = JobState.CANCELLED if isinstance(error, Cancelled) else JobState.FAILED
        while True:
            try:
                await self._store.finish(
                    stored.id,
                    state,
                    error=error,
                    steps_done=job.steps_done if job else 0,
                    metadata=metadata,
                    model_version=job.model_version if job else "",
                    paid=job.charge.owed if job and job.charge else 0,
                    forget_key=forget_key,
                )
                return await self._store.get(stored.id, stored.key)
            except JobExpired:
                # The sweep was faster: who waits shall hear of the end all the same.
                return replace(
                    stored,
                    state=state,
                    error_code=error.code if error else "",
                    error_detail=error.detail if error else "",
                    steps_done=job.steps_done if job else 0,
                    metadata=metadata,
                    model_version=job.model_version if job else "",
                )
            except StoreUnavailable as failure:
                log.warning("job_end_not_stored", job_id=stored.id, reason=failure.detail)
                await asyncio.sleep(RETRY_SECONDS)

    async def hand_back(self, job: Job) -> None:
        """Let the next process run a job that this one stops, as if it had not begun."""
        while True:
            try:
                await self._store.hand_back(job.id)
            except StoreUnavailable as failure:
                log.warning("job_not_handed_back", job_id=job.id, reason=failure.detail)
                await asyncio.sleep(RETRY_SECONDS)
            else:
                return

    async def _keep(self, job: Job, result: JobFinished, metadata: Mapping[str, Any]) -> None:
        spans = self._spans()
        started = time.monotonic()
        with spans.stage("image_encode") if spans else nullcontext():
            pictures = await asyncio.to_thread(self._encode, result, job.request, metadata)
        self._metrics.stage_duration.labels("image_encode").observe(
            time.monotonic() - started, exemplar(job.request_id, job.trace_id)
        )
        with spans.stage("image_store") if spans else nullcontext():
            await asyncio.to_thread(self._results.write, job.id, pictures, metadata)

    def _done(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("job_record_failed", exc_info=error)
