"""Nodes of a real Ray cluster that die: one with engines, and the store of the head."""

import asyncio
import os
import signal

import psutil
import pytest

from service.core.events import JobFinished, Stepped
from service.engine.protocol import EngineExited
from tests.support.ray.cluster import Cluster, child_of
from tests.support.ray.engines import LONG, WAIT_SECONDS, Engines, ended, lives
from tests.support.wait import until

pytestmark = pytest.mark.long


@pytest.fixture
async def broken():
    """Start a cluster that a test may break, with a node for each of two engines."""
    settings = {"FAKE_JOB_SECONDS": "0.2", "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "120"}
    cluster = await asyncio.to_thread(Cluster, (1, 1), settings)
    yield cluster
    await asyncio.to_thread(cluster.end)


@pytest.fixture
async def engines(broken, tmp_path):
    """Start a source of engines in it."""
    made = Engines(broken, "nodes", tmp_path)
    await made.start()
    yield made
    await made.source.stop()


async def test_a_killed_node_takes_its_engine_with_it_and_another_one_joins(broken, engines):
    """Ray leaves actors of a dead node alive, with the GPU: the kernel ends them."""
    remotes = [await engines.next(), await engines.next()]
    for remote in remotes:
        remote.engine.generate("long", LONG, 1)
    actor = next(each for each in broken.actors() if each.ppid() == broken.nodes[1]["raylet"])
    processes = actor, child_of(actor)
    os.kill(broken.nodes[1]["raylet"], signal.SIGKILL)
    await until(ended(*processes), WAIT_SECONDS, "the actor and its child end")
    async with asyncio.timeout(WAIT_SECONDS):
        left = await engines.left.get()
    lost, other = sorted(remotes, key=lambda remote: remote.engine is not left)
    assert (await lost.next(EngineExited)).reason == "lost"
    assert engines.value("engines_lost_total") == 1
    assert len((await other.next(JobFinished)).images) == 4
    await asyncio.to_thread(broken.add_node, 1)
    await (await engines.next()).works("on the new node")
    await other.works("on the old one")
    assert other.engine.restarts == 0


async def test_engines_work_on_while_the_head_has_no_store(broken, engines):
    """Its calls do not pass the store, which begins again with what it had on its disk."""
    remotes = [await engines.next(), await engines.next()]
    driver, restarts = engines.source.pid, [remote.engine.restarts for remote in remotes]
    store = psutil.Process(broken.nodes[0]["gcs_server"])
    store.kill()
    for remote in remotes:
        await remote.works("while it is away")

    async def unseen() -> bool:
        return bool(engines.value("seen_age_seconds") > 5)

    await until(unseen, WAIT_SECONDS, "the service tells that it does not see the cluster")
    await asyncio.to_thread(broken.restart_gcs)
    for remote in remotes:
        await remote.works("when it is back")
    await asyncio.to_thread(broken.add_node, 1)
    await (await engines.next()).works("on a new node")
    assert engines.source.pid == driver
    assert not await unseen()
    assert [remote.engine.restarts for remote in remotes] == restarts


async def test_a_stop_needs_no_head(broken, engines):
    """Engines end with their service while the store of the head is away."""
    for remote in [await engines.next(), await engines.next()]:
        await remote.works("before")
    actors = broken.actors()
    assert len(actors) == 2
    psutil.Process(broken.nodes[0]["gcs_server"]).kill()
    await engines.source.stop()
    await until(ended(*actors), WAIT_SECONDS, "the actors end")


async def test_a_node_that_leaves_ends_its_jobs_first(broken, engines):
    """Ray tells that it drains; its engine is let go when it has nothing to do, and it ends."""
    remotes = [await engines.next(), await engines.next()]
    for remote in remotes:
        remote.engine.generate("long", LONG, 1)
    raylet = psutil.Process(broken.nodes[1]["raylet"])
    draining = asyncio.create_task(asyncio.to_thread(broken.drain, 1))
    async with asyncio.timeout(WAIT_SECONDS):
        left = await engines.left.get()
    leaving, other = sorted(remotes, key=lambda remote: remote.engine is not left)
    for remote in remotes:
        assert len((await remote.next(JobFinished)).images) == 4
    assert lives(raylet), "it waits for its engine"
    await leaving.engine.stop()
    await draining
    assert not lives(raylet)
    await other.works("on the node that stays")
    assert engines.value("engines_lost_total") == 0


async def test_a_node_that_leaves_ends_its_jobs_first_also_when_the_driver_is_killed(
    broken, engines
):
    """The next driver finds its engine, too, and takes up what goes on there."""
    remotes = [await engines.next(), await engines.next()]
    draining = asyncio.create_task(asyncio.to_thread(broken.drain, 1))
    async with asyncio.timeout(WAIT_SECONDS):
        left = await engines.left.get()
    leaving, other = sorted(remotes, key=lambda remote: remote.engine is not left)
    leaving.engine.generate("long", LONG, 1)
    await leaving.next(Stepped)
    os.kill(engines.source.pid, signal.SIGKILL)
    assert len((await leaving.next(JobFinished)).images) == 4
    assert leaving.engine.restarts == 0
    await leaving.engine.stop()
    await draining
    await other.works("on the node that stays")
