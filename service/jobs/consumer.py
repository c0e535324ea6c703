"""The one task that feeds an engine, and what happens to its jobs."""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Final

import structlog

from service.config import Config
from service.diffusion.generation import (
    Calibrated,
    Capacity,
    JobCancelled,
    JobFailed,
    JobFinished,
    OutOfMemoryHit,
    Previewed,
    Stepped,
)
from service.engine.base import Engine
from service.engine.messages import EngineExited, EngineFailed, EngineReady, Event
from service.errors import (
    EngineCrashed,
    ModelUnavailable,
    ServiceError,
    ShuttingDown,
    error_class,
)
from service.jobs import record
from service.jobs.admission import Admission
from service.jobs.batch import Batch
from service.jobs.circuit import Circuit
from service.jobs.estimate import Estimate
from service.jobs.job import Job
from service.jobs.observer import Nobody, Observer
from service.jobs.position import Position
from service.jobs.queue import JobQueue
from service.jobs.work import pixels
from service.telemetry.metrics import Metrics

log = structlog.get_logger(__name__)

FEED_AGAIN_SECONDS: Final = 1.0
"""After an error that nobody thought of."""


class Consumer:
    """Owns the queue and the running jobs of one engine.

    Jobs join the running batch as soon as it has room. Everything here runs on the
    event loop, so no state needs a lock.
    """

    def __init__(
        self,
        engine: Engine,
        metrics: Metrics,
        config: Config,
        *,
        weights: Mapping[str, int] | None = None,
    ) -> None:
        """Set up; ``weights`` are the shares of the keys where several share the queue."""
        self.engine = engine
        self.observer: Observer = Nobody()
        self.load_failed: Callable[[EngineFailed], None] = lambda _failed: None
        """Told when the model cannot be loaded, and will not be tried again."""
        self._metrics = metrics
        self._config = config
        self._queue = JobQueue(config.queue_size, weights=weights, shared=bool(weights))
        self._told = self._queue.version
        self._estimate = Estimate()
        self._circuit = Circuit(max_attempts=config.max_attempts)
        self._batch = Batch(engine, self._circuit, config)
        self.admission = Admission(
            engine=engine,
            queue=self._queue,
            running=self._batch.jobs,
            estimate=self._estimate,
            circuit=self._circuit,
            metrics=metrics,
            config=config,
        )
        self._task: asyncio.Task[None] | None = None
        self._deadline: asyncio.TimerHandle | None = None
        metrics.queue_limit.set(config.queue_size)
        metrics.batch_limit.set(config.max_concurrent_requests)
        metrics.queue_oldest.set_function(lambda: self.oldest_age)
        # Both change with the time alone, when an engine falls silent.
        metrics.ready.set_function(lambda: self.admission.ready)
        metrics.heartbeat_age.set_function(lambda: engine.silence)
        self._gauges()

    @property
    def draining(self) -> bool:
        """Whether no new work is taken any more."""
        return self.admission.draining

    @property
    def depth(self) -> int:
        """Jobs waiting."""
        return self._queue.qsize()

    @property
    def running(self) -> int:
        """Jobs in the engine."""
        return len(self._batch.jobs)

    @property
    def oldest_age(self) -> float:
        """Seconds since the acceptance of the oldest waiting job, 0 when none waits."""
        created = min((job.created for job in self._queue.waiting), default=None)
        return 0.0 if created is None else time.monotonic() - created

    async def start(self) -> None:
        """Start the engine and the task that feeds it."""
        self._task = asyncio.create_task(self._feed(), name="consumer")
        await self.engine.start(self._on_event)
        self._gauges()

    async def stop(self) -> None:
        """Fail what is left, end the task and stop the engine."""
        self.admission.draining = True
        self.give_up()
        if self._deadline is not None:
            self._deadline.cancel()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self.engine.stop()
        self._gauges()

    def drain(self) -> None:
        """Refuse new work, and fail what is unfinished when the shutdown time is over."""
        if self.draining:
            return
        self.admission.draining = True
        self._gauges()
        log.info("drain_started", waiting=self.depth, running=self.running)
        self._deadline = asyncio.get_running_loop().call_later(
            self._config.shutdown_timeout_seconds, self.give_up
        )

    def submit(self, job: Job) -> None:
        """Accept a job into the queue.

        Raises:
            ServiceError: it is refused, as ``Admission.admit`` says.

        """
        self.admission.admit(job, make_room=self._start_waiting)
        record.accepted(self._metrics, job, self.depth)
        self._slip_in()
        self._gauges()

    def restore(self, job: Job) -> None:
        """Take up a job that an earlier process accepted, above the queue's bound if need be."""
        self._queue.restore(job)
        record.accepted(self._metrics, job, self.depth)
        self._gauges()

    def position(self, job: Job) -> Position | None:
        """Return where a waiting job stands; None for one that does not wait."""
        return self.admission.position(job)

    def cancel(self, job: Job, error: ServiceError) -> None:
        """End a job that nobody waits for any more; its GPU time ends with the current step."""
        if job.final:
            return
        if not self._queue.discard(job) and self._batch.jobs.pop(job.id, None) is not None:
            self._batch.leaving[job.id] = job
            self.engine.cancel(job.id)
            self._queue.refund(job)
        job.cancel(error)
        self._ended(job)

    def preview(self, job: Job, *, wanted: bool) -> None:
        """Begin or end to show a job's pictures in the making; again after each requeueing."""
        self.engine.preview(job.id, wanted=wanted)

    async def _feed(self) -> None:
        while True:
            await self._batch.room.wait()
            self._queue.put_back(await self._queue.get())
            try:
                self._start_waiting()
            except Exception:  # Whatever it is, those who wait must not wait for ever.
                log.exception("feeding_failed")
                await asyncio.sleep(FEED_AGAIN_SECONDS)

    def _start_waiting(self) -> None:
        """Start what waits, as far as the batch has room for it."""
        while self._batch.has_room and not self._queue.empty():
            job = self._queue.get_nowait()
            if self._batch.jobs and self._batch.last_chance(job):
                self._queue.put_back(job)
                self._batch.room.clear()  # Until something leaves the batch.
                return
            self._begin(job)
        self._batch.update()

    def _slip_in(self) -> None:
        """Start the next job beside a full batch, if it is short enough for that."""
        first = next(iter(self._queue.waiting), None)
        if first is not None and self._batch.takes_beside(first):
            self._batch.put_beside(first)
            self._begin(self._queue.get_nowait())

    def _begin(self, job: Job) -> None:
        job.begin()
        self.admission.outlook.started(job, time.monotonic())
        record.begun(self._metrics, job)
        self._batch.jobs[job.id] = job
        self._batch.update()
        self._gauges()
        self.observer.begun(job)
        try:
            self.engine.generate(job.id, job.request)
        except Exception:
            log.exception("engine_refused", **job.log_context)
            self._batch.jobs.pop(job.id, None)
            job.fail(ServiceError("The error is in the log of the service."))
            self._ended(job)

    def _on_event(self, event: Event) -> None:
        match event:
            case Stepped() | Previewed():
                self._moved(event)
            case JobFinished():
                self._finished(event)
            case JobFailed():
                self._failed(event)
            case JobCancelled():
                self._left(event)
                log.info("job_left_batch", job_id=event.job_id, steps_done=event.steps_done)
            case OutOfMemoryHit():
                record.out_of_memory(self._metrics, event)
            case Capacity() | Calibrated():
                self._measured(event)
            case EngineReady():
                record.loaded(self._metrics, event.model, event.memory)
            case EngineExited():
                self._exited(event)
            case EngineFailed():
                self._load_failed(event)
        self._batch.update()
        self._slip_in()
        self._gauges()

    def _moved(self, event: Stepped | Previewed) -> None:
        if isinstance(event, Stepped):
            self._stepped(event)
        elif job := self._batch.jobs.get(event.job_id):
            self.observer.previewed(job, event)

    def _stepped(self, event: Stepped) -> None:
        for job_id, steps_done in event.progress.items():
            if job := self._batch.jobs.get(job_id):
                job.steps_done = steps_done
                self.observer.stepped(job, self._estimate.seconds([job]))
        for job_id, seconds in event.shares.items():
            if job := self._batch.find(job_id):
                job.gpu_seconds += seconds
        self._estimate.observe(pixels=event.pixels, seconds=event.seconds)
        record.stepped(self._metrics, event, self._batch.most)

    def _measured(self, event: Capacity | Calibrated) -> None:
        """Take in no more than fits, and hand the engine no more at a time than gains anything."""
        if isinstance(event, Capacity):
            self.admission.capacity = event
            record.capacity(self._metrics, event, self._config.default_size)
            return
        most = min(event.batch, self._config.max_concurrent_requests)
        self._batch.most = self.admission.outlook.batch_limit = most
        record.calibrated(self._metrics, event)

    def _finished(self, event: JobFinished) -> None:
        self._circuit.succeeded()
        job = self._batch.jobs.pop(event.job_id, None)
        if job is None:  # It was cancelled while its last step ran.
            self._left(event)
            return
        job.succeed(event, self.engine.model.version if self.engine.model else "")
        self._estimate.observe_rest(
            pixels=pixels(job.request), seconds=event.times.total - event.times.denoise
        )
        record.finished(self._metrics, job, event)
        record.used(self._metrics, job, event.times)
        self._ended(job)

    def _failed(self, event: JobFailed) -> None:
        if job := self._batch.jobs.pop(event.job_id, None):
            job.fail(error_class(event.code)(event.detail))
            record.used(self._metrics, job, event.times)
            self._ended(job)
        else:
            self._left(event)

    def _left(self, event: JobFinished | JobFailed | JobCancelled) -> None:
        """Count what a job had cost that nobody waits for any more."""
        if job := self._batch.leaving.pop(event.job_id, None):
            record.used(self._metrics, job, event.times)

    def _exited(self, event: EngineExited) -> None:
        """Run what the dead engine had in work again, first come first."""
        lost, left = self._batch.lose()
        record.engine_exited(self._metrics, event, [*lost, *left])
        self._circuit.crashed(event.restart_seconds)
        self.admission.capacity = None  # It was the dead one's.
        for job in reversed(lost):
            if job.attempts >= self._config.max_attempts:
                job.fail(
                    EngineCrashed(
                        f"The engine ended {job.attempts} times while it ran this request."
                    )
                )
                self._ended(job)
            else:
                job.requeue()
                self._queue.put_back(job)
                self.observer.requeued(job)
                log.warning("job_requeued", attempts=job.attempts, **job.log_context)

    def _load_failed(self, event: EngineFailed) -> None:
        """Fail what waits on a connection; what outlives the process waits for the next start."""
        kept = [job for job in self._queue.waiting if self.observer.keeps(job)]
        log.error("model_load_failed", code=event.code, detail=event.detail, kept=len(kept))
        for job in self._queue.waiting:
            if job not in kept:
                self._queue.discard(job)
                job.fail(ModelUnavailable(event.detail))
                self._ended(job)
        self.load_failed(event)

    def give_up(self) -> None:
        """Fail everything that is unfinished, now."""
        for job in [*self._batch.jobs.values(), *self._queue.waiting]:
            self.cancel(job, ShuttingDown("The service stopped before the picture was finished."))

    def _ended(self, job: Job) -> None:
        self.admission.outlook.left(job)
        record.ended(self._metrics, job)
        self.observer.ended(job)
        self._batch.update()
        self._gauges()

    def _gauges(self) -> None:
        if self._told != self._queue.version:
            self._told = self._queue.version
            self.observer.moved()
        self._metrics.queue_depth.set(self.depth)
        self._metrics.jobs_running.set(self.running)
        if not self._batch.jobs:
            self._metrics.batch_live.set(0)
        record.engine_state(self._metrics, self.engine.state, circuit_open=self._circuit.open)
