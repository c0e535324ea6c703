"""Events of all jobs, and the rows of those that are kept on the disk."""

import asyncio
import time
from dataclasses import replace
from functools import partial

import structlog

from service.core.events import Previewed
from service.core.outcome import Outcome
from service.errors import GenerationFailed, RequestTimedOut, ServiceError
from service.jobs import record
from service.jobs.dispatch.dispatcher import Dispatcher
from service.jobs.durable.event_log import PREVIEW
from service.jobs.durable.live_job import LiveJob, last_event
from service.jobs.durable.positions import PositionEvents
from service.jobs.durable.result_writer import OfSpans, ResultWriter
from service.jobs.inputs.of_jobs import JobInputs
from service.jobs.job import Job, JobState
from service.jobs.observer import Observer
from service.jobs.store.stored import StoredJob
from service.system.executors import IMAGES
from service.telemetry.metrics import Metrics

log = structlog.get_logger(__name__)


class JobRecorder(Observer):
    """Follows the jobs of a dispatcher; ``writer`` keeps the durable ones, if there is one."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        writer: ResultWriter | None,
        inputs: JobInputs,
        metrics: Metrics,
        *,
        spans: OfSpans,
    ) -> None:
        self.live: dict[str, LiveJob] = {}
        """Jobs that are not over, by id; durable ones until their end is on the disk."""
        self._dispatcher, self._writer, self._spans = dispatcher, writer, spans
        self._inputs, self._metrics = inputs, metrics
        self._pasting: set[asyncio.Task[None]] = set()
        self.positions = PositionEvents(self.live, dispatcher.position)
        dispatcher.observer = self

    def _writer_of(self, live: LiveJob) -> ResultWriter | None:
        return self._writer if live.durable else None

    def keeps(self, job: Job) -> bool:
        """Return whether it is on the disk and not over."""
        return job.id in self.live and self.live[job.id].durable

    def promised(self, job: Job) -> bool:
        """Return whether it is run though no client waits for it."""
        return job.id in self.live and self.live[job.id].promised

    def begun(self, job: Job) -> None:
        """Count the attempt, so that a job that ends every process is given up in the end."""
        if live := self.live.get(job.id):
            if writer := self._writer_of(live):
                writer.later(writer.store.begin(job.id, job.epoch))
            live.events.say("started", {"attempt": job.attempts})
            if live.events.viewers:
                self._dispatcher.preview(job, wanted=True)

    def adopted(self, job: Job) -> None:
        """Show that it runs, in the attempt that it was in."""
        if live := self.live.get(job.id):
            if writer := self._writer_of(live):
                writer.later(writer.store.resume(job.id, job.epoch))
            live.events.say("started", {"attempt": job.attempts})
            if live.events.viewers:
                self._dispatcher.preview(job, wanted=True)

    def stepped(self, job: Job, left_seconds: float) -> None:
        """Say how far it is."""
        if live := self.live.get(job.id):
            done, steps = job.steps_done, job.request.total_steps
            eta = {"eta_seconds": round(left_seconds, 3)}
            live.events.say("step", {"step": done, "steps": steps, **eta})

    def previewed(self, job: Job, preview: Previewed) -> None:
        """Show those who asked for it how far the image is."""
        if (live := self.live.get(job.id)) and live.events.viewers:
            data = {"step": preview.step, "steps": job.request.total_steps}
            size = {"width": preview.width, "height": preview.height}
            live.events.say(PREVIEW, {**data, **size, "pixels": preview.pixels})

    def requeued(self, job: Job, *, counted: bool = True) -> None:
        """Note that it waits again."""
        if live := self.live.get(job.id):
            if writer := self._writer_of(live):
                wait = writer.store.requeue if counted else writer.store.hand_back
                writer.later(wait(job.id, job.epoch))
            self.positions.tell(live)

    def moved(self) -> None:
        """Tell those who watch a waiting job its new position."""
        self.positions.moved()

    def drawn(self, job: Job) -> bool:
        """Keep its images and end it then, if it is durable; put repainted parts back."""
        live = self.live.get(job.id)
        if live is None:
            return False
        if writer := self._writer_of(live):
            writer.later(self._end(live, writer), live.context)
        elif job.request.masked:
            task = asyncio.get_running_loop().create_task(self._end_pasted(live))
            self._pasting.add(task)
            task.add_done_callback(self._pasting.discard)
        else:
            return False
        return True

    async def _end_pasted(self, live: LiveJob) -> None:
        job = live.job
        result = job.result
        assert result is not None  # noqa: S101 - its images were drawn
        try:
            job.result = await IMAGES.run_for(job.owner, partial(self._inputs.pasted, job, result))
        except Exception as failure:
            # Whatever it is, nobody may wait for ever.
            log.exception("job_not_pasted", job_id=job.id)
            error = failure if isinstance(failure, ServiceError) else GenerationFailed()
            job.fail(error)
        else:
            job.succeed()
        record.used(self._metrics, job, result.times)
        record.ended(self._metrics, job)
        self._end_in_memory(live)

    def _end_in_memory(self, live: LiveJob) -> None:
        if spans := self._spans():
            live.context.run(spans.job, live.job)
        self._settle(live, live.row)
        self._inputs.drop(live.job)

    def ended(self, job: Job) -> None:
        """Write the end down, except where a restart runs the job again."""
        live = self.live.get(job.id)
        if live is None:
            return
        writer = self._writer_of(live)
        if writer is None:
            self._end_in_memory(live)
        elif job.outcome is not Outcome.SHUT_DOWN:
            writer.later(self._end(live, writer), live.context)
        else:
            if job.started is not None:  # It ran, and nothing was wrong with it.
                writer.later(writer.hand_back(job))
            live.events.say("queued", {"position": None, "reason": "the service restarts"})

    async def _end(self, live: LiveJob, writer: ResultWriter) -> None:
        stored, written = live.stored, False
        try:
            stored = await writer.end(live)
            written = stored.final  # Else a later attempt than ours will tell it.
        except Exception:
            # Whatever it is, nobody may wait for ever. The row is as it was: a restart runs it.
            log.exception("job_end_failed", job_id=stored.id)
            error = ServiceError("The result of the job could not be stored.")
            stored = replace(
                stored, state=JobState.FAILED, error_code=error.code, error_detail=error.detail
            )
        self._settle(live, stored)
        if written:
            writer.on_finished(stored)

    def _settle(self, live: LiveJob, stored: StoredJob) -> None:
        if live.deadline is not None:
            live.deadline.cancel()
        self.live.pop(stored.id, None)
        live.stored = stored
        live.settled.set()
        last = last_event(stored)
        live.events.say(last.kind, last.data)

    def watch_deadline(self, live: LiveJob) -> None:
        """End the job when its time is over."""
        if live.stored.deadline_at is None:
            return
        late = RequestTimedOut("The job was not finished by its deadline.")
        # A clock that was set back meanwhile must not give it more time than it was given.
        given = live.stored.deadline_at - live.stored.created_at
        live.deadline = asyncio.get_running_loop().call_later(
            min(given, max(0.0, live.stored.deadline_at - time.time())),
            lambda: self._dispatcher.cancel(live.job, late),
        )
