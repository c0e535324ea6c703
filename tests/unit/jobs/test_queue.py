"""The bounded queue of jobs."""

import asyncio

import pytest

from service.diffusion.generation import GenerationRequest
from service.jobs.job import Job
from service.jobs.queue import JobQueue


def job() -> Job:
    return Job(request=GenerationRequest(prompt="a cat"))


async def test_jobs_are_served_in_the_order_they_came():
    """Who comes first is served first."""
    queue, jobs = JobQueue(3), [job(), job(), job()]
    for each in jobs:
        queue.put_nowait(each)
    assert [await queue.get() for _ in jobs] == jobs


async def test_a_full_queue_refuses():
    """One job more than the bound is refused."""
    queue = JobQueue(1)
    queue.put_nowait(job())
    with pytest.raises(asyncio.QueueFull):
        queue.put_nowait(job())


async def test_a_job_that_comes_back_is_next_even_above_the_bound():
    """A job put back is served before those that wait, and never refused."""
    queue, first, second = JobQueue(1), job(), job()
    queue.put_nowait(second)
    queue.put_back(first)
    assert queue.waiting == (first, second)
    assert queue.full()


async def test_a_job_that_comes_back_wakes_the_consumer():
    """A consumer that waits on an empty queue gets the job put back."""
    queue, returned = JobQueue(1), job()
    getter = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.put_back(returned)
    assert await getter is returned


async def test_leaving_the_line_frees_the_place_at_once():
    """A discarded job is gone from the line, and its place can be taken."""
    queue, gone, other = JobQueue(1), job(), job()
    queue.put_nowait(gone)
    assert queue.discard(gone)
    queue.put_nowait(other)
    assert queue.waiting == (other,)


async def test_a_job_that_does_not_wait_cannot_leave():
    """Discarding a job that is not in line changes nothing and says so."""
    assert JobQueue(1).discard(job()) is False
