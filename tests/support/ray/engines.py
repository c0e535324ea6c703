"""Engines of a Ray cluster as a service has them, with nothing else of a service."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import psutil

from service.config.loading import load
from service.core.events import JobFinished
from service.core.spec import GenerationSpec
from service.engine.base import Engine
from service.engine.protocol import EngineReady, Event
from service.engine.ray.engine import RemoteEngine
from service.engine.ray.source import RaySource
from service.telemetry.metrics import Metrics
from tests.support.ray.cluster import Cluster

WAIT_SECONDS = 120.0
WORKER = "tests.support.fake_worker:run"
REQUEST = GenerationSpec(prompt="a cat", width=64, height=64, steps=4)
LONG = GenerationSpec(prompt="a cat", width=64, height=64, steps=50, num_images=4)


class Remote:
    """An engine that joined, and what it said."""

    def __init__(self, engine: RemoteEngine) -> None:
        self.engine = engine
        self.events: asyncio.Queue[Event] = asyncio.Queue()

    async def next(self, *kinds: type) -> Any:
        """Return the next event of these kinds."""
        async with asyncio.timeout(WAIT_SECONDS):
            while True:
                if isinstance(said := await self.events.get(), kinds):
                    return said

    async def works(self, job_id: str) -> None:
        self.engine.generate(job_id, REQUEST, 1)
        assert (await self.next(JobFinished)).job_id == job_id


class Engines:
    """What joins and leaves."""

    def __init__(self, cluster: Cluster, namespace: str, folder: Path) -> None:
        config = load(cluster.settings(namespace) | {"DATA_DIR": str(folder)})
        self.source = RaySource(config, worker=WORKER)
        self._metrics = Metrics()
        self.source.measure(self._metrics)
        self.joined: asyncio.Queue[Remote] = asyncio.Queue()
        self.left: asyncio.Queue[Engine] = asyncio.Queue()
        self.heard = asyncio.Event()
        self._starts: set[asyncio.Task[None]] = set()

    def _join(self, engine: Engine) -> None:
        assert isinstance(engine, RemoteEngine)
        remote = Remote(engine)
        start = asyncio.create_task(engine.start(remote.events.put_nowait))
        self._starts.add(start)
        self.joined.put_nowait(remote)

    async def start(self) -> None:
        await self.source.start(self._join, self.left.put_nowait, self.heard.set)

    def value(self, name: str) -> float:
        """Return a metric of the cluster as it is now."""
        value = self._metrics.registry.get_sample_value(f"sd_cluster_{name}")
        assert value is not None
        return value

    async def next(self) -> Remote:
        """Return the next engine that is ready."""
        async with asyncio.timeout(WAIT_SECONDS):
            remote = await self.joined.get()
            await remote.next(EngineReady)
        return remote


def ended(*processes: psutil.Process) -> Callable[[], Awaitable[bool]]:
    """Return what tells whether all of these have ended."""

    async def gone() -> bool:
        return not any(lives(each) for each in processes)

    return gone


def lives(process: psutil.Process) -> bool:
    """Return whether a process has not ended; one that nobody has waited for has."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
