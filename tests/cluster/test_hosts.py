"""Hosts in actors of a real Ray cluster, and what kills, stops and isolates them."""

import os
import signal
from collections.abc import AsyncIterator

import psutil
import pytest

from service.core.events import JobFinished
from service.engine.protocol import EngineAdopted, EngineExited, EngineReady, Held
from service.engine.ray import source as sources
from tests.support.ray.cluster import child_of
from tests.support.ray.engines import LONG, WAIT_SECONDS, Engines, ended
from tests.support.wait import until


@pytest.fixture
async def engines(cluster, request, tmp_path) -> AsyncIterator[Engines]:
    """Start a source of engines with a namespace of its own."""
    made = Engines(cluster, request.node.name[:40], tmp_path)
    await made.start()
    yield made
    await made.source.stop()
    await until(ended(*cluster.actors()), WAIT_SECONDS, "the engines end with their service")


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
    """Ray never notices. Its child ends itself meanwhile, and it comes back with another."""
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
        await until(ended(*children), WAIT_SECONDS, "the children end themselves")
    finally:
        for actor in actors:
            actor.resume()
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


async def test_an_engine_without_a_service_ends_itself(cluster, engines, monkeypatch):
    """Nobody renews the lease any more; its jobs may run elsewhere."""
    monkeypatch.setattr(sources, "SILENT_SECONDS", WAIT_SECONDS)
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
