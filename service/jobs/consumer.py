"""The one task that feeds an engine, and what happens to its jobs."""

import asyncio
import time

import structlog

from service.config import Config
from service.diffusion.generation import (
    JobCancelled,
    JobFailed,
    JobFinished,
    OutOfMemoryHit,
    Stepped,
)
from service.engine.base import Engine, EngineState
from service.engine.messages import EngineExited, EngineFailed, EngineReady, Event
from service.errors import (
    EngineCrashed,
    ModelUnavailable,
    QueueFull,
    ServiceError,
    ShuttingDown,
    error_class,
)
from service.jobs import measurement
from service.jobs.estimate import Estimate
from service.jobs.job import Job
from service.jobs.queue import JobQueue
from service.telemetry.metrics import Metrics

log = structlog.get_logger(__name__)


class Consumer:
    """Owns the queue and the running jobs of one engine.

    Jobs join the running batch as soon as it has room. Everything here runs on the
    event loop, so no state needs a lock.
    """

    def __init__(self, engine: Engine, metrics: Metrics, config: Config) -> None:
        self.engine = engine
        self.draining = False
        self._metrics = metrics
        self._config = config
        self._queue = JobQueue(config.queue_size)
        self._running: dict[str, Job] = {}
        self._estimate = Estimate()
        self._room = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._deadline: asyncio.TimerHandle | None = None
        metrics.queue_limit.set(config.queue_size)
        metrics.batch_limit.set(config.max_concurrent_requests)

    @property
    def depth(self) -> int:
        """Jobs waiting."""
        return self._queue.qsize()

    @property
    def running(self) -> int:
        """Jobs in the engine."""
        return len(self._running)

    async def start(self) -> None:
        """Start the engine and the task that feeds it."""
        self._task = asyncio.create_task(self._feed(), name="consumer")
        await self.engine.start(self._on_event)

    async def stop(self) -> None:
        """Fail what is left, end the task and stop the engine."""
        self.draining = True
        self.give_up()
        if self._deadline is not None:
            self._deadline.cancel()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self.engine.stop()
        self._metrics.engine_ready.set(0)

    def drain(self) -> None:
        """Refuse new work, and fail what is unfinished when the shutdown time is over."""
        if self.draining:
            return
        self.draining = True
        log.info("drain_started", waiting=self.depth, running=self.running)
        self._deadline = asyncio.get_running_loop().call_later(
            self._config.shutdown_timeout_seconds, self.give_up
        )

    def submit(self, job: Job) -> None:
        """Accept a job into the queue.

        Raises:
            ShuttingDown: no new work is taken any more.
            ModelUnavailable: the model could not be loaded.
            QueueFull: with the seconds after which there is a place.

        """
        if self.draining:
            raise self._refused(
                "shutting_down", ShuttingDown("Send the request to another instance.")
            )
        if self.engine.state is EngineState.FAILED:
            raise self._refused("model_unavailable", ModelUnavailable(self.engine.failure))
        if self._queue.full():
            self._start_waiting()  # The consumer task may not have had its turn yet.
        if self._queue.full():
            seconds = self._estimate.retry_after(
                self._queue.waiting, tuple(self._running.values()), time.monotonic()
            )
            raise self._refused(
                "queue_full",
                QueueFull(
                    f"{self._config.queue_size} requests are waiting; retry in {seconds} s.",
                    retry_after=seconds,
                ),
            )
        self._queue.put_nowait(job)
        self._gauges()
        log.info("job_queued", depth=self.depth, **job.log_context)

    def cancel(self, job: Job, error: ServiceError) -> None:
        """End a job that nobody waits for any more; its GPU time ends with the current step."""
        if job.final:
            return
        if not self._queue.discard(job) and self._running.pop(job.id, None) is not None:
            self.engine.cancel(job.id)
        job.cancel(error)
        self._ended(job)

    async def _feed(self) -> None:
        while True:
            await self._room.wait()
            self._queue.put_back(await self._queue.get())
            self._start_waiting()

    def _start_waiting(self) -> None:
        """Start what waits, as far as the batch has room for it."""
        while self._has_room and not self._queue.empty():
            job = self._queue.get_nowait()
            if self._running and self._last_chance(job):
                self._queue.put_back(job)
                self._room.clear()  # Until something leaves the batch.
                return
            self._begin(job)
        self._update_room()

    def _last_chance(self, job: Job) -> bool:
        """Whether a job that lost engines before may be started once more only.

        It then runs alone: whichever job of a batch it is that kills the engine, the
        others are not failed with it.
        """
        return 0 < job.attempts >= self._config.max_attempts - 1

    def _begin(self, job: Job) -> None:
        first = job.attempts == 0
        job.begin()
        if first:
            self._metrics.queue_wait.observe((job.started or 0) - job.created)
        self._running[job.id] = job
        self._update_room()
        self._gauges()
        log.info("job_started", attempt=job.attempts, **job.log_context)
        self.engine.generate(job.id, job.request)

    @property
    def _has_room(self) -> bool:
        running = self._running.values()
        return (
            self.engine.state is EngineState.READY
            and sum(job.request.num_images for job in running)
            < self._config.max_concurrent_requests
            and not any(1 < job.attempts >= self._config.max_attempts for job in running)
        )

    def _update_room(self) -> None:
        if self._has_room:
            self._room.set()
        else:
            self._room.clear()

    def _on_event(self, event: Event) -> None:
        match event:
            case Stepped():
                self._stepped(event)
            case JobFinished():
                self._finished(event)
            case JobFailed():
                self._failed(event)
            case JobCancelled():
                log.info("job_left_batch", job_id=event.job_id, steps_done=event.steps_done)
            case OutOfMemoryHit():
                self._metrics.out_of_memory.labels(event.stage).inc()
                log.warning("memory_ran_out", stage=event.stage, batch_size=event.batch_size)
            case EngineReady():
                self._ready(event)
            case EngineExited():
                self._exited(event)
            case EngineFailed():
                self._load_failed(event)
        self._update_room()
        self._gauges()

    def _stepped(self, event: Stepped) -> None:
        for job_id, steps_done in event.progress.items():
            if job := self._running.get(job_id):
                job.steps_done = steps_done
        self._estimate.observe(pixels=event.pixels, seconds=event.seconds)
        measurement.stepped(self._metrics, event)

    def _finished(self, event: JobFinished) -> None:
        job = self._running.pop(event.job_id, None)
        if job is None:  # It was cancelled while its last step ran.
            return
        job.succeed(event, self.engine.model.version if self.engine.model else "")
        measurement.finished(self._metrics, event)
        self._ended(job)

    def _failed(self, event: JobFailed) -> None:
        if job := self._running.pop(event.job_id, None):
            job.fail(error_class(event.code)(event.detail))
            self._ended(job)

    def _ready(self, event: EngineReady) -> None:
        model = event.model
        measurement.loaded(self._metrics, model)
        log.info(
            "model_loaded",
            model_id=model.model_id,
            model_version=model.version,
            demo=model.demo,
            device=model.device,
            dtype=model.dtype,
            seconds=round(model.load_seconds, 3),
        )

    def _exited(self, event: EngineExited) -> None:
        """Run what the dead engine had in work again, first come first."""
        self._metrics.engine_restarts.inc()
        lost = list(self._running.values())
        self._running.clear()
        log.error(
            "engine_exited", exit_code=event.exit_code, restarts=event.restarts, jobs=len(lost)
        )
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
                log.warning("job_requeued", attempts=job.attempts, **job.log_context)

    def _load_failed(self, event: EngineFailed) -> None:
        """Without a model nothing that waits can ever run."""
        log.error("model_load_failed", code=event.code, detail=event.detail)
        for job in [*self._running.values(), *self._queue.waiting]:
            self._queue.discard(job)
            job.fail(ModelUnavailable(event.detail))
            self._ended(job)
        self._running.clear()

    def give_up(self) -> None:
        """Fail everything that is unfinished, now."""
        for job in [*self._running.values(), *self._queue.waiting]:
            self.cancel(job, ShuttingDown("The service stopped before the picture was finished."))

    def _refused(self, reason: str, error: ServiceError) -> ServiceError:
        self._metrics.refused.labels(reason).inc()
        return error

    def _ended(self, job: Job) -> None:
        measurement.ended(self._metrics, job)
        self._update_room()
        self._gauges()
        log.info(
            "job_ended",
            outcome=job.outcome,
            seconds=round((job.ended or 0) - job.created, 3),
            steps_done=job.steps_done,
            error=job.error.code if job.error else None,
            **job.log_context,
        )

    def _gauges(self) -> None:
        self._metrics.queue_depth.set(self.depth)
        self._metrics.jobs_running.set(self.running)
        self._metrics.engine_ready.set(self.engine.state is EngineState.READY)
