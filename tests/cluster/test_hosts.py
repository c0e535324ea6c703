"""Hosts in actors of a real Ray cluster, and what kills, stops and isolates them."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from service.config.loading import load
from service.core.events import JobFinished
from service.core.spec import GenerationSpec
from service.engine.protocol import EngineAdopted, EngineExited, EngineReady, Event, Held
from service.engine.ray.engine import RemoteEngine
from service.engine.ray.source import RaySource
from tests.support.ray.cluster import Cluster, child_of
from tests.support.wait import until

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
    """A service's engines in a cluster, with nothing else of the service."""

    def __init__(self, cluster: Cluster, namespace: str, folder: Path) -> None:
        config = load(cluster.settings(namespace) | {"DATA_DIR": str(folder)})
        self.source = RaySource(config, worker=WORKER)
        self.joined: asyncio.Queue[Remote] = asyncio.Queue()
        self._starts: set[asyncio.Task[None]] = set()

    def _join(self, engine: Any) -> None:
        remote = Remote(engine)
        start = asyncio.create_task(engine.start(remote.events.put_nowait))
        self._starts.add(start)
        self.joined.put_nowait(remote)

    async def start(self) -> None:
        await self.source.start(self._join, lambda _engine: None)

    async def next(self) -> Remote:
        """Return the next engine that is ready."""
        async with asyncio.timeout(WAIT_SECONDS):
            remote = await self.joined.get()
        await remote.next(EngineReady)
        return remote


@pytest.fixture
async def engines(cluster, request, tmp_path) -> AsyncIterator[Engines]:
    """Start a source of engines with a namespace of its own."""
    made = Engines(cluster, request.node.name[:40], tmp_path)
    await made.start()
    yield made
    await made.source.stop()
    await until(ended(*cluster.actors()), WAIT_SECONDS, "the engines end with their service")


def ended(*processes: psutil.Process) -> Any:
    async def gone() -> bool:
        return not any(lives(each) for each in processes)

    return gone


def lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def test_an_engine_has_the_priority_and_the_threads_of_any_program(cluster, engines):
    """Ray starts actors at nice 15 and with one thread, and its worker has no place in a child."""
    for _ in range(3):
        await engines.next()
    actors = cluster.actors()
    assert len(actors) == 3
    for actor in actors:
        child = child_of(actor)
        usual = 0 if os.geteuid() == 0 else actor.nice()
        assert (actor.nice(), child.nice()) == (usual, usual)
        environment = child.environ()
        assert "OMP_NUM_THREADS" not in environment
        assert not [each.path for each in child.memory_maps() if "_raylet" in each.path]


async def test_a_killed_child_is_replaced_by_its_host(cluster, engines):
    """Ray has no part in it, and the others go on."""
    first = await engines.next()
    await first.works("before")
    remotes = [first, await engines.next(), await engines.next()]
    for actor in cluster.actors():
        child_of(actor).kill()
    for number, remote in enumerate(remotes):
        assert (await remote.next(EngineExited)).reason == "killed"
        await remote.next(EngineReady)
        await remote.works(f"after-{number}")


async def test_a_killed_actor_takes_its_child_with_it_and_is_replaced(cluster, engines):
    """What it had is lost; another actor of its name makes the images."""
    remotes = [await engines.next() for _ in range(3)]
    for remote in remotes:
        remote.engine.generate("long", LONG, 1)
    actors = cluster.actors()
    children = [child_of(actor) for actor in actors]
    for actor in actors:
        actor.kill()
    await until(ended(*children), WAIT_SECONDS, "the children end")
    for number, remote in enumerate(remotes):
        assert (await remote.next(EngineExited)).reason == "lost"
        await remote.next(EngineReady)
        await remote.works(f"after-{number}")


async def test_a_host_that_stood_still_is_lost_and_changes_nothing_when_it_goes_on(
    cluster, engines
):
    """Ray never notices. It ends its child before it listens, and comes back with another."""
    remotes = [await engines.next() for _ in range(3)]
    for remote in remotes:
        remote.engine.generate("long", LONG, 1)
    actors = cluster.actors()
    children = [child_of(actor) for actor in actors]
    for actor in actors:
        actor.suspend()
    try:

        async def late() -> bool:
            return all(remote.engine.late for remote in remotes)

        await until(late, WAIT_SECONDS, "the engines are late")
        for remote in remotes:
            assert (await remote.next(EngineExited)).reason == "lost"
        assert all(lives(child) for child in children)
    finally:
        for actor in actors:
            actor.resume()
    await until(ended(*children), WAIT_SECONDS, "the hosts end their children")
    for number, remote in enumerate(remotes):
        # The attempt was given up: nothing more is heard of it.
        assert isinstance(await remote.next(EngineReady, JobFinished), EngineReady)
        await remote.works(f"after-{number}")
    assert {actor.pid for actor in cluster.actors()} == {actor.pid for actor in actors}


async def test_a_killed_driver_is_replaced_and_the_engines_work_on(cluster, engines):
    """What they have in work is told, and its images come."""
    remotes = [await engines.next() for _ in range(3)]
    for remote in remotes:
        remote.engine.generate("long", LONG, 7)
    children = {child_of(actor).pid for actor in cluster.actors()}
    os.kill(engines.source.pid, signal.SIGKILL)
    for remote in remotes:
        adopted = await remote.next(EngineAdopted)
        while not adopted.jobs:  # That of the first attachment.
            adopted = await remote.next(EngineAdopted)
        assert adopted.jobs == (Held(job_id="long", epoch=7),)
        assert len((await remote.next(JobFinished)).images) == 4
        assert remote.engine.restarts == 0
    assert {child_of(actor).pid for actor in cluster.actors()} == children


async def test_an_engine_without_a_service_ends_itself(cluster, engines):
    """Its driver cannot renew the lease any more; its jobs may run elsewhere."""
    remotes = [await engines.next() for _ in range(3)]
    children = [child_of(actor) for actor in cluster.actors()]
    driver = psutil.Process(engines.source.pid)
    driver.suspend()
    try:
        await until(ended(*children), WAIT_SECONDS, "the hosts end their children")
        assert len(cluster.actors()) == 3
    finally:
        driver.kill()
    for number, remote in enumerate(remotes):
        await remote.next(EngineReady)
        await remote.works(f"after-{number}")
