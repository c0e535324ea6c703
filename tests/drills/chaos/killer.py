"""Who kills: engines and whole services, at moments that a seed decides."""

import asyncio
import os
import random
import signal
import time
from contextlib import suppress
from enum import StrEnum
from typing import Final

import psutil

from tests.drills.common.ledger import Kill, Ledger
from tests.support.service_process import READY_SECONDS, ServiceProcess
from tests.support.wait import until

MOST_WORK: Final = 2.5  # Seconds that a service is left to work before the next kill, at most.
UNREADY: Final = 0.25  # Part of the kills that do not wait for the service to be ready again.
MOST_REST: Final = 4.0
TERM_SECONDS: Final = 30.0
AWAY_SECONDS: Final = 1.0


class Blow(StrEnum):
    ENGINE_KILL = "engine SIGKILL"
    ENGINE_SEGV = "engine SIGSEGV"
    ENGINE_STOP = "engine SIGSTOP"
    SERVICE_KILL = "service SIGKILL"
    GROUP_KILL = "process group SIGKILL"
    SERVICE_TERM = "service SIGTERM"


SIGNALS: Final = {blow: signal.Signals[blow.rpartition(" ")[2]] for blow in Blow}
OF_ENGINES: Final = (*[Blow.ENGINE_KILL] * 7, *[Blow.ENGINE_SEGV] * 2, Blow.ENGINE_STOP)
OF_SERVICES: Final = (*[Blow.GROUP_KILL] * 5, *[Blow.SERVICE_KILL] * 3, *[Blow.SERVICE_TERM] * 2)


def plan(chance: random.Random, engines: int, services: int) -> list[Blow]:
    """Return so many blows in a random order; of few, the kinds are taken in turn."""
    blows = [OF_ENGINES[(7 * n) % len(OF_ENGINES)] for n in range(engines)]
    blows += [OF_SERVICES[(3 * n) % len(OF_SERVICES)] for n in range(services)]
    chance.shuffle(blows)
    return blows


class Killer:
    """Kills by the plan, starts services again, and takes the time until they are ready."""

    def __init__(self, service: ServiceProcess, ledger: Ledger, chance: random.Random) -> None:
        self._service = service
        self._ledger = ledger
        self._chance = chance
        self._struck: psutil.Process | None = None

    async def rage(self, blows: list[Blow]) -> None:
        """Strike one blow after the other."""
        for number, blow in enumerate(blows):
            ready = await self._service.is_ready()
            await asyncio.sleep(self._chance.uniform(0, MOST_WORK if ready else MOST_REST))
            begun = time.monotonic()
            await self._strike(blow)
            # Some blows fall on a service that has not recovered from the one before.
            if self._chance.random() < UNREADY and number + 1 < len(blows):
                continue
            await self._recovered(begun)

    async def strike(self, blow: Blow) -> None:
        """Strike one blow, and wait until the service is ready again."""
        begun = time.monotonic()
        await self._strike(blow)
        await self._recovered(begun)

    async def _strike(self, blow: Blow) -> None:
        await (self._strike_engine if blow in OF_ENGINES else self._strike_service)(blow)

    async def _recovered(self, begun: float) -> None:
        await until(self._again, READY_SECONDS, "the service ready after a kill")
        self._ledger.kills[-1].ready_after = time.monotonic() - begun

    async def _strike_engine(self, blow: Blow) -> None:
        # A stopped engine is noticed by its silence, and one that loads has nothing to say.
        if blow is Blow.ENGINE_STOP:
            await self._service.ready()
        there = await self._service.engine()
        self._struck = self._chance.choice(self._service.engines() or [there])
        self._ledger.kills.append(Kill(at=time.time(), blow=blow))
        with suppress(psutil.NoSuchProcess):  # It was just about to end by itself.
            self._struck.send_signal(SIGNALS[blow])

    async def _strike_service(self, blow: Blow) -> None:
        process = self._service.process
        self._ledger.kills.append(Kill(at=time.time(), blow=blow))
        self._service.family()  # Known now, or its engine could not be ended with it.
        if blow is Blow.GROUP_KILL:
            os.killpg(process.pid, SIGNALS[blow])
        else:
            process.send_signal(SIGNALS[blow])
        try:
            await asyncio.to_thread(process.wait, TERM_SECONDS)
        finally:
            await asyncio.sleep(self._chance.uniform(0, AWAY_SECONDS))
            await self._service.start(ready=False)

    async def _again(self) -> bool:
        """Whether images can be made again, by another engine than the struck one."""
        return await self._service.engine() != self._struck and await self._service.is_ready()
