"""When an engine is asked to load a model, and when to unload one.

A job starts on an engine that has its model in memory; others may start before it meanwhile. Its
model is asked for when its fair turn has come, or before where nothing has to leave for it. A model
that would have to leave keeps its memory for ``PATIENCE`` loads while it has work; then the engine
starts nothing until the new model has room. So every model gets its turn, in the order in which
turns came, and switching takes a bounded share of the time.

Of several engines one is enough for a model, until its jobs would wait longer than another engine,
which has nothing to do, takes to load it, too.
"""

import asyncio
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import structlog

from service.config.table import Config
from service.core.events import (
    ModelEvent,
    ModelFailed,
    ModelLoaded,
    ModelLoading,
    ModelsResident,
    ModelUnloaded,
    UnloadReason,
)
from service.errors import ModelUnavailable, ServiceError
from service.jobs import record
from service.jobs.dispatch.slot import EngineSlot
from service.jobs.job import Job
from service.jobs.queue.queue import JobQueue
from service.models.served.catalog import ModelCatalog
from service.telemetry.metrics import Metrics

log = structlog.get_logger(__name__)

SOONEST: Final = 0.01
"""Seconds until the policy is asked again at the earliest."""


class Switches:
    """Asks the engines of ``slots`` for the models of the jobs in ``queue``."""

    def __init__(
        self,
        slots: Sequence[EngineSlot],
        queue: JobQueue,
        models: ModelCatalog,
        config: Config,
        metrics: Metrics,
    ) -> None:
        self._slots, self._queue, self._models = slots, queue, models
        self._idle = config.model_idle_seconds
        self._active = bool(self._idle) or len(models.entries) > 1
        self._metrics = metrics
        self.fail: Callable[[Job, ServiceError], None] = lambda _job, _error: None
        """Ends a waiting job; set by the dispatcher."""
        self.changed: Callable[[], None] = lambda: None
        """Called when time alone has changed what may happen; set by the dispatcher."""
        self._blocked: dict[str, float] = {}
        """Jobs whose turn came before their model, by id, since when."""
        self._timer: asyncio.TimerHandle | None = None

    def heard(self, slot: EngineSlot, event: ModelEvent) -> None:
        """Take note of what became of a model."""
        residency = slot.residency
        match event:
            case ModelLoading():
                wanted = residency.wanted == self._models.key(event.model_id)
                residency.reading = wanted and event.room
            case ModelLoaded():
                key = self._models.key(event.model_id)
                residency.came(event, key)
                self._came(key)
                record.model_came(slot.metrics, self._models[key].id, event)
            case ModelUnloaded():
                key = self._models.key(event.model_id)
                residency.left(event, key)
                slot.capacities.pop(key, None)
                record.model_left(slot.metrics, self._models[key].id, event)
            case ModelFailed():
                key = self._models.key(event.model_id)
                record.model_failed(slot.metrics, self._models[key].id, event)
                residency.failed(key, event.detail, transient=event.transient)
                if not event.transient:
                    self._give_up(key, event.detail)
            case ModelsResident():
                keys = {name: self._models.key(name) for name in (*event.device, *event.host)}
                residency.resident(event, keys)
                names = {name: self._models[key].id for name, key in keys.items()}
                gpu = slot.engine.model is not None and slot.engine.model.gpu
                record.models_resident(slot.metrics, event, names, gpu=gpu)

    def lost(self, slot: EngineSlot) -> None:
        """Take note that an engine ended, perhaps for the model that it was loading."""
        if (guilty := slot.residency.lose()) is not None:
            detail = "The engine ended each time that it loaded the model."
            slot.residency.failed(guilty, detail, transient=False)
            self._give_up(guilty, detail)

    def _came(self, key: str) -> None:
        """Note how long jobs have waited for a model."""
        now, name = time.monotonic(), self._models[key].id
        for job in self._queue.waiting:
            if job.model == key and (since := self._blocked.pop(job.id, None)) is not None:
                self._metrics.model_wait.labels(name).observe(now - since)

    def left(self, job: Job) -> None:
        """Forget a job that is over."""
        self._blocked.pop(job.id, None)

    def stop(self) -> None:
        """Ask for nothing any more."""
        if self._timer is not None:
            self._timer.cancel()

    def failure(self, key: str) -> str:
        """Return why no engine can load a model; empty if one may."""
        if not all(slot.residency.failure(key) for slot in self._slots):
            return ""
        return self._slots[0].residency.failure(key)

    def consider(self) -> bool:
        """Ask for the models whose turn it is, and let those go that nobody uses.

        Return whether there are several models, so that any slot may have changed.
        """
        if not self._active:
            return False
        now = time.monotonic()
        for slot in self._slots:
            if slot.jobs:
                slot.idle_since = now
        wanted, busy = self._wanted(now)
        waits: list[float | None] = []
        for key, later in wanted.items():
            # None that another model has to leave for is asked for before the first of them.
            first = not any(waits)
            waits.append(self._ask(key, busy=busy, later=later or not first))
        for key, others in self._crowded():
            waits.append(self._ask(key, busy=False, slots=others))
        if self._idle:
            waits += [self._unload_idle(slot, wanted, now) for slot in self._slots]
        self._again(min((seconds for seconds in waits if seconds is not None), default=None))
        return True

    def _wanted(self, now: float) -> tuple[dict[str, bool], bool]:
        """Return the models that jobs wait for, and whether one that is in memory has work.

        The one for which a job's turn came first is the first; with each it says whether the turn
        of none has come yet.
        """
        ready = [slot for slot in self._slots if slot.ready and not slot.retiring]
        holders: dict[str, list[EngineSlot]] = defaultdict(list)
        for slot in ready:
            for key in slot.residency.loaded:
                holders[key].append(slot)
        since: dict[str, float] = {}
        startable = not ready
        for job in self._queue.in_order():
            if (held := holders.get(job.model)) and self._fits(job, held):
                startable = True
                continue
            if not startable:
                self._blocked.setdefault(job.id, now)
            came = self._blocked.get(job.id, math.inf)
            since[job.model] = min(came, since.get(job.model, math.inf))
        found = {key: since[key] == math.inf for key in sorted(since, key=lambda key: since[key])}
        busy = startable or any(slot.jobs for slot in self._slots)
        return found, busy

    def _fits(self, job: Job, holders: Sequence[EngineSlot]) -> bool:
        """Return whether a job can be drawn where its model is in memory.

        If it cannot, an engine without that model may have the memory for its images, too.
        """
        if len(self._slots) == 1 or any(slot.fits(job.request) for slot in holders):
            return True
        return not any(slot.fits(job.request) for slot in self._slots if not slot.closed)

    def _crowded(self) -> Iterator[tuple[str, list[EngineSlot]]]:
        """Yield models whose jobs wait next to idle engines, and those engines.

        Loading it once more has to take less time than its jobs would wait where it is.
        """
        idle = [slot for slot in self._slots if slot.has_room and not slot.jobs]
        if not idle or len(self._slots) == 1 or self._queue.empty():
            return
        waiting: dict[str, list[Job]] = defaultdict(list)
        for job in self._queue.waiting:
            if not job.held:
                waiting[job.model].append(job)
        for key, jobs in waiting.items():
            held = [slot for slot in self._slots if slot.ready and key in slot.residency.loaded]
            others = [slot for slot in idle if slot not in held]
            if not held or not others or any(slot.has_room for slot in held):
                continue
            seconds = min(slot.estimate.seconds(jobs) for slot in held) / len(held)
            if seconds > min(slot.residency.load_seconds(key) for slot in others):
                yield key, others

    def _ask(
        self,
        key: str,
        *,
        busy: bool,
        later: bool = False,
        slots: Sequence[EngineSlot] | None = None,
    ) -> float | None:
        """Ask for a model, or return in how many seconds to try; None if something else comes.

        Without ``slots`` any engine may load it.
        """
        free = [
            slot
            for slot in (self._slots if slots is None else slots)
            if slot.ready
            and not slot.retiring
            and slot.residency.wanted is None
            and key not in slot.residency.loaded
            and not slot.residency.failure(key)
        ]
        if not free or any(slot.residency.wanted == key for slot in self._slots):
            return None
        slot = min(free, key=lambda slot: (slot.residency.evicts(key), len(slot.jobs)))
        if later and slot.residency.evicts(key):
            return None
        wait = slot.residency.wait_seconds(key, busy=busy, idle_since=slot.idle_since)
        if wait > 0:
            return wait
        slot.residency.ask(key)
        log.info("model_load_asked", engine=slot.metrics.name, model_id=self._models[key].id)
        slot.engine.load_model(key)
        return None

    def _unload_idle(self, slot: EngineSlot, wanted: dict[str, bool], now: float) -> float | None:
        residency = slot.residency
        running = {job.model for job in (*slot.jobs.values(), *slot.leaving.values())}
        waiting = {job.model for job in self._queue.waiting}
        soonest = None
        for key in [*residency.loaded, *residency.parked]:
            if key in running or key in waiting or key in wanted or key == residency.wanted:
                residency.used[key] = now
            left = residency.used.setdefault(key, now) + self._idle - now
            if left <= 0:
                residency.loaded.discard(key)  # From now on nothing starts on it.
                residency.parked -= {key}
                slot.engine.unload_model(key, UnloadReason.IDLE)
            else:
                soonest = left if soonest is None else min(left, soonest)
        return soonest

    def _give_up(self, key: str, detail: str) -> None:
        """End the jobs that wait for a model that no engine can load."""
        if not self.failure(key):
            return
        for job in [job for job in self._queue.waiting if job.model == key]:
            self.fail(job, ModelUnavailable(f"The model {self._models[key].id}: {detail}"))

    def _again(self, seconds: float | None) -> None:
        """Consider again after so many seconds, if nothing happens before."""
        self.stop()
        self._timer = None
        if seconds is not None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(max(seconds, SOONEST), self.changed)
