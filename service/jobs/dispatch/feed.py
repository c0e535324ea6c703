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
from service.jobs.dispatch.placement import BYPASSED, Start, bypass, next_start
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
        self._refused: Job | None = None
        """The next job, when it joined no full batch."""
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
        while start := self._next_start():
            self._begin(*start)
        self._update(can_start=False)

    def _next_start(self) -> Start | None:
        return next_start(self._queue.in_order(), self.slots, self._pool.free)

    def _bypass(self, *changed: EngineSlot) -> None:
        """Let the next job join a full batch, if it is short enough for that.

        Where it was the next one before, only a slot that changed may take it now; among many
        slots each is asked when it changes.
        """
        first, before = self._queue.first, self._refused
        self._refused = first
        if first is None or first.held:
            return
        known = first is before or len(self.slots) > BYPASSED
        if slot := bypass(first, self.slots, changed if known else self.slots):
            slot.put_bypass(first)
            self._begin(first, slot)

    def _begin(self, job: Job, slot: EngineSlot) -> None:
        self._queue.take(job)
        job.engine = slot.name
        job.begin()
        self._forecast.started(job, time.monotonic())
        record.begun(self._metrics, job)
        slot.jobs[job.id] = job
        self._show(slot)
        self._gauges()
        self._hash_of(job.model)  # It is read while the images are drawn.
        try:
            slot.start(job)
        except Exception:
            log.exception("engine_refused", engine=job.engine, **job.log_context)
            slot.jobs.pop(job.id, None)
            self._show(slot)
            job.fail(errors.ServiceError("The error is in the log of the service."))
            self._ended(job)
        else:
            self.observer.begun(job)  # Who cancels now cancels what the engine knows.

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

    def _changed(self, *slots: EngineSlot) -> None:
        """Start what may start at once, and let the task know of the rest.

        ``slots`` are those in which something has changed.
        """
        if self._switches.consider():
            slots = tuple(self.slots)
        self._show(*slots)
        self._bypass(*slots)
        self._update()
        self._gauges()
        self._pool.let_go()

    def _update(self, *, can_start: bool = True) -> None:
        """Let the task run while a job can be started, or could be if one came."""
        if self._queue.empty():
            room = bool(self._pool.free)
        else:
            room = can_start and self._next_start() is not None
        if room:
            self._room.set()
        else:
            self._room.clear()

    def _gauges(self) -> None:
        if self._seen != self._queue.version:
            self._seen = self._queue.version
            self.observer.moved()
        self._metrics.queue_depth.set(self.depth)

    def _show(self, *slots: EngineSlot) -> None:
        """Note what changed in slots."""
        self._pool.look(*slots)
        for slot in slots:
            slot.show()
