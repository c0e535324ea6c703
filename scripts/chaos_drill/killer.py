"""Who kills: engines and whole services, at moments that a seed decides."""

import asyncio
import os
import random
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import psutil

from scripts.chaos_drill.ledger import Ledger
from scripts.drill.service import READY_SECONDS, Service
from scripts.drill.wait import until

MOST_WORK: Final = 2.5
"""Seconds that a service is left to work before the next kill, at most."""

UNREADY: Final = 0.25
"""Part of the kills that do not wait for the service to be ready again."""

MOST_REST: Final = 4.0
TERM_SECONDS: Final = 30.0
AWAY_SECONDS: Final = 1.0


class Blow(StrEnum):
    """How something is ended."""

    ENGINE_KILL = "engine SIGKILL"
    ENGINE_SEGV = "engine SIGSEGV"
    ENGINE_STOP = "engine SIGSTOP"
    SERVICE_KILL = "service SIGKILL"
    GROUP_KILL = "process group SIGKILL"
    SERVICE_TERM = "service SIGTERM"


SIGNALS: Final = {
    Blow.ENGINE_KILL: signal.SIGKILL,
    Blow.ENGINE_SEGV: signal.SIGSEGV,
    Blow.ENGINE_STOP: signal.SIGSTOP,
}
OF_ENGINES: Final = (*[Blow.ENGINE_KILL] * 7, *[Blow.ENGINE_SEGV] * 2, Blow.ENGINE_STOP)
OF_SERVICES: Final = (*[Blow.GROUP_KILL] * 5, *[Blow.SERVICE_KILL] * 3, *[Blow.SERVICE_TERM] * 2)


@dataclass(frozen=True, kw_only=True)
class Kill:
    """One kill and how long the service then could not work, in seconds."""

    blow: Blow
    ready_after: float | None
    """None where the next kill came first."""


def plan(chance: random.Random, engines: int, services: int) -> list[Blow]:
    """Return so many blows in a random order; of few, the kinds are taken in turn."""
    blows = [OF_ENGINES[(7 * n) % len(OF_ENGINES)] for n in range(engines)]
    blows += [OF_SERVICES[(3 * n) % len(OF_SERVICES)] for n in range(services)]
    chance.shuffle(blows)
    return blows


class Killer:
    """Kills by the plan, starts services again, and takes the time until they are ready."""

    def __init__(self, service: Service, ledger: Ledger, chance: random.Random) -> None:
        self._service = service
        self._ledger = ledger
        self._chance = chance
        self.kills: list[Kill] = []

    async def rage(self, blows: list[Blow]) -> None:
        """Strike one blow after the other."""
        for number, blow in enumerate(blows):
            await self._moment()
            struck = time.monotonic()
            await self._strike(blow)
            # Some blows fall on a service that has not recovered from the one before.
            if self._chance.random() < UNREADY and number + 1 < len(blows):
                self.kills.append(Kill(blow=blow, ready_after=None))
                continue
            await self._recovered()
            seconds = time.monotonic() - struck
            self.kills.append(Kill(blow=blow, ready_after=seconds))

    async def _moment(self) -> None:
        ready = await self._service.is_ready()
        await asyncio.sleep(self._chance.uniform(0, MOST_WORK if ready else MOST_REST))

    async def _strike(self, blow: Blow) -> None:
        if blow in SIGNALS:
            # A stopped engine is noticed by its silence, and one that loads has nothing to say.
            if blow is Blow.ENGINE_STOP:
                await self._service.ready()
            engine = await self._service.engine()
            self._ledger.kills.append(time.time())
            with suppress(psutil.NoSuchProcess):  # It was just about to end by itself.
                engine.send_signal(SIGNALS[blow])
            self._struck = engine
            return
        child = self._service.child
        self._ledger.kills.append(time.time())
        child.family()  # Known now, or its engine could not be ended with it.
        if blow is Blow.GROUP_KILL:
            os.killpg(child.pid, signal.SIGKILL)
        elif blow is Blow.SERVICE_KILL:
            child.process.kill()
        else:
            child.process.terminate()
        try:
            await asyncio.wait_for(child.process.wait(), TERM_SECONDS)
        finally:
            await asyncio.sleep(self._chance.uniform(0, AWAY_SECONDS))
            await self._service.start(ready=False)

    async def _recovered(self) -> None:
        """Wait until pictures can be made again, by another engine than the struck one."""

        async def again() -> bool:
            engine = await self._service.engine()
            return engine != self._struck and await self._service.is_ready()

        await until(again, READY_SECONDS, "the service ready after a kill")

    _struck: psutil.Process | None = None
