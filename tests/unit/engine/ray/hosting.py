"""A host in a process of its own, whose engine writes down how old the lease is at each step."""

import asyncio
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

from service.config.table import Config
from service.core.events import Stepped
from service.core.spec import GenerationSpec
from service.core.stage import Stage
from service.engine.process import worker
from service.engine.protocol import EngineEvent, EngineReady
from service.engine.ray.gpu_lock import Hosted
from service.engine.ray.host import EngineHost
from service.engine.ray.lease import Lease
from tests.support.fake_worker import FakePool
from tests.support.simulation.fake_engine import FAKE_MODEL
from tests.unit.engine.ray.conftest import Driver

RENEW_SECONDS: Final = 0.1
ENDLESS: Final = GenerationSpec(prompt="a cat", width=64, height=64, steps=100_000)
STEP_SECONDS: Final = 0.01


def quick() -> float:
    """Return a time that passes faster, so that nobody waits for ten seconds."""
    return 4 * time.monotonic()


@dataclass(frozen=True, kw_only=True)
class NotingWorker:
    """The engine's own program with a model that makes no real images."""

    notes: Path
    lease: Lease

    def __call__(self, channel: worker.EngineChannel, config: Config) -> None:
        """Work as the engine does."""
        worker.run(channel, config, self.start)

    def start(self, config: Config, send: worker.Send) -> tuple[Any, list[EngineEvent]]:
        """Load nothing."""
        announce = worker.announcing(config, send)

        def begin(stage: Stage, images: int) -> None:
            with self.notes.open("a") as file:
                file.write(f"{self.lease.age}\n")
            announce(stage, images)

        return FakePool(ENDLESS.steps * STEP_SECONDS, begin), [EngineReady(model=FAKE_MODEL)]


def run(pipe: "Connection[int, int]", notes: Path) -> None:
    """Host an engine, and say its process id when it has made a step; renew the lease for ever."""
    asyncio.run(_host(pipe, notes))


async def _host(pipe: "Connection[int, int]", notes: Path) -> None:
    lease = Lease(quick)
    entry = Hosted(entry=NotingWorker(notes=notes, lease=lease), gpu="", lease=lease)
    driver = Driver(EngineHost("0", entry=entry, lease=lease))
    await driver.attach()
    renewing = asyncio.create_task(_renew(driver))
    await driver.ready()
    await driver.generate("endless", ENDLESS)
    await driver.next(Stepped)
    assert driver.host.pid is not None
    pipe.send(driver.host.pid)
    await renewing


async def _renew(driver: Driver) -> None:
    while True:
        assert await driver.renew()
        await asyncio.sleep(RENEW_SECONDS)
