"""Dispatcher of the queued jobs to the engines."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence

import structlog

from service import errors
from service.config.table import Config
from service.core import events
from service.core.capacity import Capacity
from service.core.limits import RequestLimits
from service.core.work import pixels
from service.engine.base import Engine
from service.engine.protocol import EngineAdopted, EngineExited, EngineFailed, EngineReady, Event
from service.jobs import record
from service.jobs.dispatch.admission import Admission
from service.jobs.dispatch.feed import Feed
from service.jobs.dispatch.placement import nearest
from service.jobs.dispatch.slot import EngineSlot
from service.jobs.job import Job
from service.jobs.queue.forecast import Position
from service.models.served.catalog import DEFAULT, ONE, ModelCatalog
from service.telemetry.metrics import Metrics

log = structlog.get_logger(__name__)


class Dispatcher(Feed):
    """Owns the queue and one slot for each engine.

    A job is bound to a slot when one has room for it, and joins the running batch there.
    Everything here runs on the event loop, so no state needs a lock.
    """

    def __init__(
        self,
        engines: Sequence[Engine],
        metrics: Metrics,
        config: Config,
        *,
        weights: Mapping[str, int] | None = None,
        models: ModelCatalog = ONE,
        hash_of: Callable[[str], str] = lambda _key: "",
    ) -> None:
        """Set up.

        ``weights`` are the shares of the keys where several share the queue. ``models`` are
        those that requests can name. ``hash_of`` returns the short hash of a model at once,
        empty if it is not known.
        """
        super().__init__(engines, metrics, config, weights=weights, models=models, hash_of=hash_of)
        self.engines_join = False
        """Whether engines may join that are not there yet."""
        self.adoption_seconds = 0.0
        """After a start, how long an engine may go on unheard with jobs of before."""
        self._unwritten: list[Job] = []
        """Restored jobs that may run, although nobody wrote down that they began."""
        self.load_failed: Callable[[EngineFailed], None] = lambda _failed: None
        """Called when no engine can load its model, and none will try again."""
        self.admission = Admission(
            *(self.slots, self._queue, self._forecast, models, self._switches.failure),
            metrics=metrics,
            config=config,
        )
        self._task: asyncio.Task[None] | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._adoption: asyncio.TimerHandle | None = None
        metrics.know_models(tuple(each.id for each in models.entries))
        metrics.queue_limit.set(config.queue_size)
        metrics.queue_oldest.set_function(lambda: self.oldest_age)
        # It changes with the time alone, when an engine falls silent.
        metrics.ready.set_function(lambda: self.admission.ready)
        self._show(*self.slots)
        self._gauges()

    @property
    def lead(self) -> EngineSlot:
        """The slot that stands for the service: one that works, or is nearest to it."""
        return nearest(self.slots)

    def join(self, engine: Engine) -> EngineSlot:
        """Give an engine that comes a slot, and start it."""
        slot = self._pool.join(engine)
        self._changed(slot)
        return slot

    def leave(self, engine: Engine) -> None:
        """Give an engine no more jobs; it is stopped when those that it has are over."""
        self._pool.leave(engine)
        self._changed(*self.slots)

    def limits(self, key: str = DEFAULT) -> RequestLimits:
        """Return the limits and defaults of requests to a model."""
        return self.slot_of(key).limits(key)

    def slot_of(self, key: str) -> EngineSlot:
        """Return the slot that stands for a model: where it is in memory, or was loaded once."""
        lead = self.lead
        if key == DEFAULT or key in lead.residency.loaded:
            return lead
        has = (slot for slot in self.slots if key in slot.residency.loaded)
        knows = (slot for slot in (lead, *self.slots) if slot.info(key))
        return next(has, None) or next(knows, lead)

    @property
    def oldest_age(self) -> float:
        """Seconds since the acceptance of the oldest waiting job, 0 when none waits."""
        created = min((job.created for job in self._queue.waiting), default=None)
        return 0.0 if created is None else time.monotonic() - created

    async def start(self) -> None:
        """Start the engines and the task that feeds them."""
        self._task = asyncio.create_task(self._feed(), name="consumer")
        await self._pool.start()
        self._adoption = asyncio.get_running_loop().call_later(
            self.adoption_seconds, self._release_all
        )
        self._show(*self.slots)
        self._gauges()

    async def stop(self) -> None:
        """Fail what is left, end the task and stop the engines."""
        self.admission.draining = True
        self.give_up()
        self._switches.stop()
        for timer in (self._deadline, self._adoption):
            if timer is not None:
                timer.cancel()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._pool.stop()
        self._show(*self.slots)
        self._gauges()

    def drain(self) -> None:
        """Refuse new work, and fail what is unfinished when the shutdown time is over."""
        if self.admission.draining:
            return
        self.admission.draining = True
        log.info("drain_started", waiting=self.depth, running=self.running)
        self._deadline = asyncio.get_running_loop().call_later(
            self._config.shutdown_timeout_seconds, self.give_up
        )

    def submit(self, job: Job) -> None:
        """Accept a job into the queue.

        Raises:
            ServiceError: it is refused, as ``Admission.admit`` says.

        """
        job.model = self.models.key(job.request.model)
        promised = self.observer.promised(job)
        self.admission.admit(job, make_room=self._start_waiting, promised=promised)
        record.accepted(self._metrics, job, self.depth)
        self._changed()

    def restore(self, job: Job, *, ran: bool = False) -> None:
        """Take up a job that an earlier process accepted, above the queue's bound if need be.

        Where engines outlive the service, a job that ``ran`` waits until none can have it any
        more. Another one may have been begun without a word in its row: it waits for the engines
        that are known.
        """
        job.model = self.models.key(job.request.model)
        job.held = self.adoption_seconds > 0
        if job.held and not ran:
            self._unwritten.append(job)
        self._queue.restore(job)
        record.accepted(self._metrics, job, self.depth)
        self._changed()

    def position(self, job: Job) -> Position | None:
        """Return where a waiting job stands; None for one that does not wait."""
        return self._forecast.position(job)

    def cancel(self, job: Job, error: errors.ServiceError) -> None:
        """End a job that nobody waits for any more; its GPU time ends with the current step."""
        if job.final or job.drawn is not None:
            return
        job.cancel(error)  # Before its engine is told, which may say at once what it cost.
        if not self._queue.discard(job):
            for slot in [each for each in self.slots if each.cancel(job)]:
                self._queue.refund(job)
                self._show(slot)
        self._ended(job)

    def interrupt(self, job: Job) -> None:
        """End a running job early, with its unfinished images; one that waits ends without any."""
        if not any(slot.interrupt(job) for slot in self.slots):
            self.cancel(job, errors.Cancelled("The job was interrupted before it had begun."))

    def preview(self, job: Job, *, wanted: bool) -> None:
        """Begin or end to show a running job's images in the making.

        A job that waits has none: ask again when it has begun.
        """
        for slot in self.slots:
            if job.id in (slot.jobs if wanted else slot.shown):
                slot.preview(job.id, wanted=wanted)

    def _on_event(self, slot: EngineSlot, event: Event) -> None:
        match event:
            case events.AttemptEvent() if slot.is_late(event.job_id, event.epoch):
                return
            case EngineAdopted():
                self._adopt(slot, event)
            case events.Stepped():
                self._stepped(slot, event)
            case events.Previewed():
                if job := slot.jobs.get(event.job_id):
                    self.observer.previewed(job, event)
            case events.JobFinished():
                self._finished(slot, event)
            case events.JobFailed():
                self._failed(slot, event)
            case events.JobCancelled():
                self._left(slot, event)
                ended = {"job_id": event.job_id, "steps_done": event.steps_done}
                log.info("job_left_batch", engine=slot.metrics.name, **ended)
            case _:
                self._engine_reported(slot, event)
        self._changed(slot)

    def _engine_reported(self, slot: EngineSlot, event: Event) -> None:
        match event:
            case events.OutOfMemoryHit():
                record.out_of_memory(slot.metrics, event)
            case events.ModelEvent():
                self._switches.heard(slot, event)
                self._show(slot)
                self._start_waiting()  # Before another model is asked for.
            case Capacity():
                slot.capacities[event.model_id] = event
                if event.model_id == DEFAULT:
                    record.capacity(slot.metrics, event, slot.limits().default_size)
            case events.AdaptersChanged():
                record.adapters(slot.metrics, event)
            case events.BatchCalibrated():
                slot.calibrated(event.batch, event.model_id)
                record.calibrated(slot.metrics, event)
            case EngineReady():
                slot.residency.begin(event.model)
                record.loaded(slot.metrics, event.model, event.memory)
            case EngineExited():
                self._exited(slot, event)
            case EngineFailed():
                self._load_failed(slot, event)

    def _stepped(self, slot: EngineSlot, event: events.Stepped) -> None:
        for job in slot.stepped(event):
            self.observer.stepped(job, slot.estimate.seconds([job]))
        record.stepped(slot.metrics, event, slot.batch_limit)

    def _finished(self, slot: EngineSlot, event: events.JobFinished) -> None:
        slot.circuit.succeeded()
        job = slot.jobs.pop(event.job_id, None)
        if job is None:  # It was cancelled while its last step ran.
            self._left(slot, event)
            return
        slot.drew(job, event, self._hash_of(job.model))
        rest = event.times.total - event.times.denoise
        slot.estimate.observe_rest(pixels=pixels(job.request), seconds=rest, model=job.model)
        record.finished(self._metrics, job, event)
        if job.interrupted:
            self._queue.refund(job)
        if self.observer.drawn(job):
            self._forecast.left(job)
            return
        job.succeed()
        record.used(self._metrics, job, event.times)
        self._ended(job)

    def _failed(self, slot: EngineSlot, event: events.JobFailed) -> None:
        job = slot.jobs.pop(event.job_id, None)
        if job is None:
            self._left(slot, event)
        elif event.code == events.MODEL_NOT_LOADED:
            slot.residency.loaded.discard(job.model)
            self._wait_again(job, counted=False)
        else:
            job.fail(errors.error_of(event.code, event.detail))
            record.used(self._metrics, job, event.times)
            self._ended(job)

    def _adopt(self, slot: EngineSlot, event: EngineAdopted) -> None:
        """Take up what an engine went on with, where nothing else became of it meanwhile.

        What it should have and has not is lost, as with an engine that ends.
        """
        there = {held.job_id: held.epoch for held in event.jobs}
        self._lost([job for job in slot.miss(there) if not job.final])
        for job_id, epoch in there.items():
            if job_id in slot.jobs:
                continue
            job = self._queue.find(job_id)
            if job is None or epoch < job.epoch:
                self._turn_away(slot, job_id, epoch)
                continue
            self._queue.take(job)
            job.engine = slot.name
            job.resume(epoch)
            self._forecast.left(job)
            slot.adopt(job)
            self.observer.adopted(job)
            log.info("job_adopted", engine=slot.name, attempt=job.attempts, **job.log_context)

    def _turn_away(self, slot: EngineSlot, job_id: str, epoch: int) -> None:
        """Cancel an attempt that an engine went on with, where a job has no use for it."""
        for other in self.slots:
            if job := other.jobs.get(job_id):
                job.used = max(job.used, epoch)
        slot.engine.cancel(job_id)

    def engines_heard(self) -> None:
        """Let the jobs start that never ran, as far as their rows and the known engines tell."""
        self._release(self._unwritten)

    def _release_all(self) -> None:
        self._release(self._queue.waiting)

    def _release(self, jobs: Sequence[Job]) -> None:
        """Let jobs start that no engine went on with."""
        for job in jobs:
            job.held = False
        self._unwritten.clear()
        self._changed()

    def _left(
        self, slot: EngineSlot, event: events.JobFinished | events.JobFailed | events.JobCancelled
    ) -> None:
        """Count what a job had cost that nobody waits for any more."""
        if job := slot.leaving.pop(event.job_id, None):
            record.used(self._metrics, job, event.times)

    def _exited(self, slot: EngineSlot, event: EngineExited) -> None:
        lost, left = slot.lose()
        record.engine_exited(slot.metrics, event, [*lost, *left])
        slot.circuit.crashed(event.restart_seconds)
        self._lost(lost)
        self._switches.lost(slot)

    def _lost(self, jobs: Sequence[Job]) -> None:
        """Run what an engine had in work and has no more again, first come first."""
        for job in reversed(jobs):
            if job.attempts >= self._config.max_attempts:
                ended = f"The engine ended {job.attempts} times while it ran this request."
                job.fail(errors.EngineCrashed(ended))
                self._ended(job)
            else:
                self._wait_again(job)

    def _load_failed(self, slot: EngineSlot, event: EngineFailed) -> None:
        """Fail what waits on a connection; what outlives the process waits for the next start.

        While another engine may load its model, or join, everything waits for that one.
        """
        others = any(not other.closed for other in self.slots if other is not slot)
        over = not (others or self.engines_join)
        given_up = [job for job in self._queue.waiting if over and not self.observer.keeps(job)]
        kept = self.depth - len(given_up)
        said = {"code": event.code, "detail": event.detail}
        log.error("model_load_failed", engine=slot.metrics.name, kept=kept, **said)
        for job in given_up:
            self._fail_waiting(job, errors.ModelUnavailable(event.detail))
        if over:
            self.load_failed(event)

    def give_up(self) -> None:
        """Fail everything that is unfinished, now."""
        running = [job for slot in self.slots for job in slot.jobs.values()]
        for job in [*running, *self._queue.waiting]:
            stopped = "The service stopped before the image was finished."
            self.cancel(job, errors.ShuttingDown(stopped))
