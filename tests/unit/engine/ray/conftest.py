"""A host over an obedient engine process, and a clock for its lease."""

import asyncio
from typing import Any

import pytest

from service.config.table import Config
from service.core.spec import GenerationSpec
from service.engine.channel import written
from service.engine.protocol import EngineExited, EngineReady, Generate
from service.engine.ray.host import EngineHost
from service.engine.ray.lease import Lease
from service.engine.ray.messages import (
    FROM_HOST,
    REMOTE_EVENTS,
    EngineAttached,
    EventBatch,
    Pulse,
    written_settings,
)
from tests.unit.engine.process import children

WAIT_SECONDS = 30.0
SETTINGS = written_settings(Config())
SERVICE = "service-1"
REQUEST = GenerationSpec(prompt="a cat", width=64, height=64, steps=3)
STAYS = GenerationSpec(prompt="stays", width=64, height=64, steps=3)


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Driver:
    """What attaches to a host and reads its events."""

    def __init__(self, host: EngineHost, generation: int = 1) -> None:
        self.host, self.generation = host, generation
        self.events: asyncio.Queue[Any] = asyncio.Queue()
        self.heard = 0
        """The sign of life that came with the attachment."""
        self._reading: asyncio.Task[None] | None = None

    async def attach(self, settings: bytes = SETTINGS) -> EngineAttached:
        attached = FROM_HOST.read(await self.host.attach(SERVICE, self.generation, settings))
        assert isinstance(attached, EngineAttached)
        self.heard = attached.pulse
        self._reading = asyncio.create_task(self._read())
        return attached

    async def renew(self) -> Pulse | None:
        """Return a new sign of life for the one that was heard last; None for none."""
        if not (data := await self.host.renew(self.generation, self.heard)):
            return None
        pulse = FROM_HOST.read(data)
        assert isinstance(pulse, Pulse)
        self.heard = pulse.number
        return pulse

    async def _read(self) -> None:
        async for data in self.host.events(self.generation):
            batch = FROM_HOST.read(data)
            assert isinstance(batch, EventBatch)
            for event in batch.events:
                self.events.put_nowait(REMOTE_EVENTS.read(event))

    async def next(self, *kinds):
        """Return the next event of these kinds."""
        async with asyncio.timeout(WAIT_SECONDS):
            while True:
                if isinstance(event := await self.events.get(), kinds):
                    return event

    async def ready(self) -> None:
        await self.next(EngineReady)

    async def exited(self):
        return await self.next(EngineExited)

    async def tell(self, command) -> bool:
        return await self.host.command(self.generation, written(command))

    async def generate(self, job_id: str, request=REQUEST, epoch: int = 1) -> bool:
        return await self.tell(Generate(job_id=job_id, epoch=epoch, request=request))

    async def ended(self) -> None:
        """Wait until the host has ended the stream."""
        assert self._reading is not None
        async with asyncio.timeout(WAIT_SECONDS):
            await self._reading

    def leave(self) -> None:
        if self._reading is not None:
            self._reading.cancel()


@pytest.fixture
def clock() -> Clock:
    """Return the clock of the host's lease."""
    return Clock()


@pytest.fixture
async def host(clock):
    """Return a host that nobody has attached to."""
    made = EngineHost("sd/test/node/0", entry=children.obedient, lease=Lease(clock))
    yield made
    await made.stop()


@pytest.fixture
async def driver(host):
    """Attach a driver, and wait until the engine is ready."""
    attached = Driver(host)
    await attached.attach()
    await attached.ready()
    yield attached
    attached.leave()
