"""The whole service with its engines in a real Ray cluster."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import psutil
import pytest

from tests.support.ray.cluster import Cluster
from tests.support.service_process import ServiceProcess, ending
from tests.support.wait import free_port, until

WAIT_SECONDS = 180.0
JOBS = 9
IMAGES = 4
"""Of each job, so that it takes longer than its neighbours to be begun."""

pytestmark = pytest.mark.long


@pytest.fixture
async def service(cluster: Cluster, request) -> AsyncIterator[ServiceProcess]:
    """Return a service with three engines in the cluster."""
    settings = cluster.settings(request.node.name[:40]) | {"API_PORT": free_port()}
    with ending(ServiceProcess(module="tests.support.ray.fake_service", **settings)) as started:
        await started.ready()
        yield started
        await started.stop()


async def ordered(service: ServiceProcess) -> list[str]:
    """Return the ids of accepted jobs, of which the first are begun."""
    async with aiohttp.ClientSession(service.url) as client:
        ids = []
        for number in range(JOBS):
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


async def test_a_stop_leaves_no_engine_behind(service, cluster):
    """Actors outlive a service that is killed, and not one that is stopped."""
    since = psutil.Process(service.process.pid).create_time()
    there = [actor for actor in cluster.actors() if actor.create_time() >= since]
    assert there
    await service.stop()

    async def gone() -> bool:
        return not any(actor.is_running() and actor.status() != "zombie" for actor in there)

    await until(gone, WAIT_SECONDS, "the actors have ended")
