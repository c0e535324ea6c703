"""Deliveries of jobs that are removed."""

import asyncio

from tests.unit.webhooks.test_delivery import JOB, URL, World


async def test_a_delivery_of_a_job_that_is_removed_ends():
    """Whatever it waits for; others go on."""
    world, waits = World(500), asyncio.Event()
    world.webhooks._sleep = lambda _seconds: waits.wait()
    for job_id in (JOB, "b" * 32):
        world.webhooks.deliver(job_id, URL, {"id": job_id}, owner="anna")
    removed = world.webhooks._tasks[JOB]
    await asyncio.sleep(0)
    world.webhooks.forget([JOB, "c" * 32])
    await asyncio.wait([removed])
    assert [*world.webhooks._tasks] == ["b" * 32]
    await world.webhooks.stop()
