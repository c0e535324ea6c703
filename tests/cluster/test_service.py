"""The whole service with its engines in a real Ray cluster."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import psutil
import pytest

from tests.support.ray.cluster import Cluster
from tests.support.ray.engines import ended as processes_ended
from tests.support.service_process import ServiceProcess, ending
from tests.support.wait import free_port, until

WAIT_SECONDS = 180.0
JOBS = 9
MANY = 16
"""Jobs of which each of two engines has work for 6 s."""
IMAGES = 4
"""Of each job, so that it takes longer than its neighbours to be begun."""

pytestmark = pytest.mark.long


@asynccontextmanager
async def served(cluster: Cluster, name: str, **settings: Any) -> AsyncIterator[ServiceProcess]:
    """Hand out a service with its engines in a cluster."""
    settings |= cluster.settings(name[:40]) | {"API_PORT": free_port()}
    with ending(ServiceProcess(module="tests.support.ray.fake_service", **settings)) as started:
        await started.ready()
        yield started
        await started.stop()


@pytest.fixture
async def service(cluster: Cluster, request) -> AsyncIterator[ServiceProcess]:
    """Return a service with three engines in the cluster."""
    async with served(cluster, request.node.name) as started:
        yield started


@pytest.fixture
async def leaving() -> AsyncIterator[Cluster]:
    """Start a cluster with a node for each of two engines, of which one is to leave."""
    settings = {"FAKE_JOB_SECONDS": "0.2", "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "120"}
    cluster = await asyncio.to_thread(Cluster, (1, 1), settings)
    yield cluster
    await asyncio.to_thread(cluster.end)


async def ordered(service: ServiceProcess, jobs: int = JOBS) -> list[str]:
    """Return the ids of accepted jobs, of which the first are begun."""
    async with aiohttp.ClientSession(service.url) as client:
        ids = []
        for number in range(jobs):
            order = {"prompt": f"cat {number}", "num_images": IMAGES, "width": 256, "height": 256}
            async with client.post("/jobs", json=order) as answer:
                assert answer.status == 202
                ids.append((await answer.json())["id"])
    await asyncio.to_thread(service.logged, "job_started")
    return ids


async def ended(service: ServiceProcess, ids: list[str]) -> list[dict[str, Any]]:
    """Wait for the end of jobs and return what the service says of them."""
    async with aiohttp.ClientSession(service.url) as client:

        async def found() -> list[dict[str, Any]] | None:
            jobs = []
            for job_id in ids:
                async with client.get(f"/jobs/{job_id}") as answer:
                    jobs.append(await answer.json())
            over = all(job["state"] not in {"queued", "running"} for job in jobs)
            return jobs if over else None

        return await until(found, WAIT_SECONDS, "jobs over")


async def test_a_killed_driver_loses_no_job(service):
    """Another one is started, and every job ends once."""
    ids = await ordered(service)
    os.kill(service.logged("driver_started")["pid"], signal.SIGKILL)
    jobs = await ended(service, ids)
    assert {job["state"] for job in jobs} == {"succeeded"}
    assert service.lines("driver_ended", exit_code=-signal.SIGKILL)
    assert len(service.lines("job_ended")) == JOBS
    assert service.strays == []


async def test_a_killed_service_takes_up_what_its_engines_went_on_with(service):
    """Such a job is not begun again; every other one is, and all end."""
    ids = await ordered(service)
    service.process.kill()
    await service.stop()
    before = len(service.log)
    await service.start()
    jobs = await ended(service, ids)
    assert {job["state"] for job in jobs} == {"succeeded"}
    life = service.log[before:]
    adopted = {line["job_id"] for line in life if line["event"] == "job_adopted"}
    begun = {line["job_id"] for line in life if line["event"] == "job_started"}
    assert adopted
    assert not adopted & begun
    assert {job["attempts"] for job in jobs if job["id"] in adopted} == {1}


async def test_a_node_that_leaves_ends_its_jobs_first_also_when_the_service_is_killed(leaving):
    """The next service takes up what goes on there, and lets the engine go when it is done.

    The node itself may stay: Ray keeps it while an answer that the killed one asked for lies there.
    """
    raylet = psutil.Process(leaving.nodes[1]["raylet"])
    # All jobs are in work at once, so that those of the node are not over before the kill.
    async with served(leaving, "leaving", MAX_CONCURRENT_REQUESTS=MANY * IMAGES) as service:
        await asyncio.to_thread(service.logged, "model_loaded", count=2)
        actor = next(each for each in leaving.actors() if each.ppid() == raylet.pid)
        ids = await ordered(service, MANY)
        draining = asyncio.create_task(asyncio.to_thread(leaving.drain, 1))
        left = await asyncio.to_thread(service.logged, "engine_leaving")
        assert left["jobs"] > 0
        service.process.kill()
        await service.stop()
        before = len(service.log)
        await service.start()
        assert {job["state"] for job in await ended(service, ids)} == {"succeeded"}
        await until(processes_ended(actor), WAIT_SECONDS, "the engine is let go")
        raylet.kill()
        await draining
        life = service.log[before:]
        adopted = {line["job_id"] for line in life if line["event"] == "job_adopted"}
        there = {line["job_id"] for line in service.lines("job_started", engine=left["engine"])}
        assert adopted & there


async def test_a_stop_leaves_no_engine_behind(service, cluster):
    """Actors outlive a service that is killed, and not one that is stopped."""
    since = psutil.Process(service.process.pid).create_time()
    there = [actor for actor in cluster.actors() if actor.create_time() >= since]
    assert there
    await service.stop()

    async def gone() -> bool:
        return not any(actor.is_running() and actor.status() != "zombie" for actor in there)

    await until(gone, WAIT_SECONDS, "the actors have ended")
