"""Slots of the engines, which may join and leave while the service runs."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any

import structlog

from service.config.table import Config
from service.engine.base import Engine
from service.engine.protocol import Event
from service.engine.source import AbsentEngine
from service.jobs.dispatch.slot import EngineSlot
from service.models.served.catalog import ModelCatalog
from service.telemetry.metrics import Metrics

log = structlog.get_logger(__name__)


class EnginePool:
    """One slot for each engine, under the lowest number that was free when it came.

    There is always a slot that may work some day: without any engine, or when all of them
    leave, one waits for the next that joins.
    """

    def __init__(
        self,
        engines: Sequence[Engine],
        metrics: Metrics,
        config: Config,
        models: ModelCatalog,
        heard: Callable[[EngineSlot, Event], None],
    ) -> None:
        """Set up; ``heard`` is called with every event of an engine and its slot."""
        self.slots: list[EngineSlot] = []
        """In the order of their numbers; the same list for as long as the service runs."""
        self.free: set[EngineSlot] = set()
        """Those that had room when they changed last; some may have none by now."""
        self._metrics, self._config, self._models, self._heard = metrics, config, models, heard
        self._leaving: list[EngineSlot] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._running = False
        for engine in engines:
            self._add(engine)
        self._keep_one()

    async def start(self) -> None:
        """Start the engines."""
        self._running = True
        for slot in tuple(self.slots):
            await slot.engine.start(partial(self._hear, slot))

    async def stop(self) -> None:
        """Stop the engines; none joins any more."""
        self._running = False
        await asyncio.gather(*(slot.engine.stop() for slot in self.slots), *self._tasks)

    def join(self, engine: Engine) -> EngineSlot:
        """Give an engine a slot, and start it."""
        for slot in [each for each in self.slots if isinstance(each.engine, AbsentEngine)]:
            self._remove(slot)
        slot = self._add(engine)
        if self._running:
            self._later(engine.start(partial(self._hear, slot)))
        log.info("slot_added", engine=slot.name, slots=len(self.slots))
        return slot

    def look(self, *slots: EngineSlot) -> None:
        """Note which slots have room, after a change."""
        for slot in slots:
            if slot.has_room:
                self.free.add(slot)
            else:
                self.free.discard(slot)

    def leave(self, engine: Engine) -> None:
        """Give an engine no more jobs; it is stopped when those that it has are over."""
        for slot in self.slots:
            if slot.engine is engine and not slot.retiring:
                slot.retiring = True
                self.free.discard(slot)
                self._leaving.append(slot)
                log.info("engine_leaving", engine=slot.name, jobs=len(slot.jobs))
        self._keep_one()

    def let_go(self) -> None:
        """Stop the engines that leave and have no job any more, and remove their slots."""
        for slot in [each for each in self._leaving if not each.jobs and not each.leaving]:
            self._leaving.remove(slot)
            self._remove(slot)
            if self._running:
                self._later(slot.engine.stop())
            log.info("engine_left", engine=slot.name, slots=len(self.slots))

    def _hear(self, slot: EngineSlot, event: Event) -> None:
        if slot in self.slots:
            self._heard(slot, event)

    def _keep_one(self) -> None:
        if all(slot.retiring for slot in self.slots):
            slot = self._add(engine := AbsentEngine())
            if self._running:
                self._later(engine.start(partial(self._hear, slot)))

    def _add(self, engine: Engine) -> EngineSlot:
        taken = {slot.name for slot in self.slots}
        number = next(number for number in range(len(taken) + 1) if str(number) not in taken)
        metrics = self._metrics.know_engine(str(number))
        slot = EngineSlot(engine, metrics, self._config, self._models)
        self.slots.append(slot)
        self.slots.sort(key=lambda each: each.number)
        return slot

    def _remove(self, slot: EngineSlot) -> None:
        self.slots.remove(slot)
        self.free.discard(slot)
        slot.metrics.leave()

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("engine_not_moved", exc_info=error)
