"""Feed of the slots: which waiting job starts where, and what waits again."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import structlog

from service import errors
from service.config.table import Config
from service.engine.base import Engine
from service.engine.protocol import Event
from service.jobs import record
from service.jobs.dispatch.placement import bypass, next_start
from service.jobs.dispatch.pool import EnginePool
from service.jobs.dispatch.slot import EngineSlot
from service.jobs.dispatch.switches import Switches
from service.jobs.job import Job
from service.jobs.observer import Observer
from service.jobs.queue.forecast import QueueForecast
from service.jobs.queue.queue import JobQueue
from service.models.served.catalog import ModelCatalog
from service.telemetry.metrics import Metrics

log = structlog.get_logger(__name__)

FEED_AGAIN_SECONDS: Final = 1.0
"""Pause after an unforeseen error."""


class Feed:
    """Starts the jobs of the queue in the slots, as soon as one has room."""

    def __init__(
        self,
        engines: Sequence[Engine],
        metrics: Metrics,
        config: Config,
        *,
        weights: Mapping[str, int] | None,
        models: ModelCatalog,
        hash_of: Callable[[str], str],
    ) -> None:
        """Set up; the arguments are those of ``Dispatcher``."""
        self._metrics = metrics
        self._config, self.models, self._hash_of = config, models, hash_of
        self._pool = EnginePool(engines, metrics, config, models, self._on_event)
        self.slots = self._pool.slots
        self.observer: Observer = Observer()
        self._queue = JobQueue(config.queue_size, weights=weights, shared=bool(weights))
        self._seen = self._queue.version
        self._forecast = QueueForecast(self._queue, self.slots)
        self._switches = Switches(self.slots, self._queue, models, config, metrics)
        self._switches.fail, self._switches.changed = self._fail_waiting, self._changed
        self._room = asyncio.Event()
        """Set while a job can be started, or could be if one came."""

    def _on_event(self, slot: EngineSlot, event: Event) -> None:
        raise NotImplementedError

    @property
    def depth(self) -> int:
        """Jobs waiting."""
        return self._queue.qsize()

    @property
    def running(self) -> int:
        """Jobs in the engines."""
        return sum(len(slot.jobs) for slot in self.slots)

    async def _feed(self) -> None:
        while True:
            await self._room.wait()
            self._queue.put_back(await self._queue.get())
            try:
                self._start_waiting()
            except Exception:  # Whatever it is, those who wait must not wait for ever.
                log.exception("feeding_failed")
                await asyncio.sleep(FEED_AGAIN_SECONDS)

    def _start_waiting(self) -> None:
        """Start what waits, as far as a slot has room for it."""
        while start := next_start(self._queue.in_order(), self.slots):
            self._begin(*start)
        self._update()

    def _bypass(self) -> None:
        """Let the next job join a full batch, if it is short enough for that."""
        first = self._queue.first
        if first and not first.held and (slot := bypass(first, self.slots)):
            slot.put_bypass(first)
            self._begin(first, slot)

    def _begin(self, job: Job, slot: EngineSlot) -> None:
        self._queue.take(job)
        job.engine = slot.metrics.name
        job.begin()
        self._forecast.started(job, time.monotonic())
        record.begun(self._metrics, job)
        slot.jobs[job.id] = job
        self._gauges()
        self.observer.begun(job)
        self._hash_of(job.model)  # It is read while the images are drawn.
        try:
            slot.start(job)
        except Exception:
            log.exception("engine_refused", engine=job.engine, **job.log_context)
            slot.jobs.pop(job.id, None)
            job.fail(errors.ServiceError("The error is in the log of the service."))
            self._ended(job)

    def _wait_again(self, job: Job, *, counted: bool = True) -> None:
        job.requeue(counted=counted)
        self._queue.put_back(job)
        self.observer.requeued(job, counted=counted)
        lost_in = {"engine": job.engine, "attempts": job.attempts}
        log.warning("job_requeued", **lost_in, **job.log_context)

    def _fail_waiting(self, job: Job, error: errors.ServiceError) -> None:
        self._queue.discard(job)
        job.fail(error)
        self._ended(job)

    def _ended(self, job: Job) -> None:
        self._forecast.left(job)
        self._switches.left(job)
        record.ended(self._metrics, job)
        self.observer.ended(job)
        self._update()
        self._gauges()

    def _changed(self) -> None:
        """Start what may start at once, and let the task know of the rest."""
        self._pool.let_go()
        self._switches.consider()
        self._bypass()
        self._update()
        self._gauges()

    def _update(self) -> None:
        """Let the task run while a job can be started, or could be if one came."""
        if self._queue.empty():
            room = any(slot.has_room for slot in self.slots)
        else:
            room = next_start(self._queue.in_order(), self.slots) is not None
        if room:
            self._room.set()
        else:
            self._room.clear()

    def _gauges(self) -> None:
        if self._seen != self._queue.version:
            self._seen = self._queue.version
            self.observer.moved()
        self._metrics.queue_depth.set(self.depth)
        for slot in self.slots:
            slot.show()
