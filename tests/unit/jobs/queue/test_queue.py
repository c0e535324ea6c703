"""The bounded queue of jobs."""

import asyncio

import pytest

from service.core.events import JobFinished
from service.core.spec import GenerationSpec
from service.jobs.job import Job
from service.jobs.queue.queue import SPARE, JobQueue, Limit


def job(key: str = "anonymous", steps: int = 20) -> Job:
    return Job(request=GenerationSpec(prompt="a cat", steps=steps), owner=key)


def filled(queue: JobQueue, *jobs: Job) -> JobQueue:
    for each in jobs:
        queue.put_nowait(each)
    return queue


async def test_jobs_are_served_in_the_order_they_came():
    """Equal jobs of one key are served first come, first served."""
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


async def test_a_job_that_comes_back_wakes_the_dispatcher():
    """A dispatcher that waits on an empty queue gets the job put back."""
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


async def test_jobs_put_back_last_to_first_keep_their_order():
    """What a dead engine had in work is served before all others, as it was begun."""
    first, second, short = job(), job(), job(steps=1)
    queue = filled(JobQueue(3), first, second)
    begun = [queue.get_nowait(), queue.get_nowait()]
    queue.put_nowait(short)
    for each in reversed(begun):
        queue.put_back(each)
    assert queue.waiting == (first, second, short)


async def test_a_job_put_back_is_paid_for_once():
    """Serving a job again costs its key nothing."""
    queue = filled(JobQueue(), *[job(key) for key in "aabb"])
    queue.put_back(queue.get_nowait())
    assert [queue.get_nowait().owner for _ in range(4)] == list("abab")


async def test_restored_jobs_wait_in_their_lanes_above_the_bound():
    """After a restart a key with many unfinished jobs does not go before all others."""
    queue = JobQueue(1)
    for each in [job("a"), job("a"), job("a"), job("b")]:
        queue.restore(each)
    assert (queue.full(), queue.free) == (True, -3)
    assert [each.owner for each in queue.waiting] == list("abaa")


async def test_served_as_told():
    """``waiting`` is the order in which ``get`` serves, with the jobs put back first."""
    queue = filled(JobQueue(), *[job(key, steps) for key in "abc" for steps in (50, 4, 20)])
    queue.put_back(queue.get_nowait())
    told = queue.waiting
    assert tuple([queue.get_nowait() for _ in told]) == told


async def test_weights_are_shares():
    """A key of weight 2 gets two jobs for one of another key."""
    queue = filled(JobQueue(weights={"b": 2}), *[job(key) for key in "ab" for _ in range(6)])
    assert [queue.get_nowait().owner for _ in range(6)].count("b") == 4


@pytest.mark.parametrize("place", ["first", "second", "returned"])
async def test_a_job_can_leave_from_anywhere(place):
    """Wherever a job waits, discarding it takes out that job and no other."""
    jobs = {"returned": job(), "first": job(), "second": job()}
    queue = filled(JobQueue(), jobs["returned"])
    returned = queue.get_nowait()
    filled(queue, jobs["first"], jobs["second"])
    queue.put_back(returned)
    assert queue.discard(jobs.pop(place))
    assert queue.waiting == tuple(jobs.values())
    assert (queue.qsize(), queue.held("anonymous")) == (2, 2)


async def test_one_key_alone_may_take_every_place():
    """Where nobody else can come no place is kept."""
    queue = filled(JobQueue(5), *[job() for _ in range(5)])
    assert queue.limit("anonymous") is Limit.QUEUE


async def test_a_flooding_key_leaves_places_to_others():
    """In a shared queue a key gets four fifths of the places, and the next one finds room."""
    queue = JobQueue(50, shared=True)
    while queue.limit("flood") is None:
        queue.put_nowait(job("flood"))
    assert (queue.held("flood"), queue.limit("flood")) == (40, Limit.KEY)
    with pytest.raises(asyncio.QueueFull):
        queue.put_nowait(job("flood"))
    with pytest.raises(asyncio.QueueFull):
        await queue.put(job("flood"))
    filled(queue, *[job("light") for _ in range(8)])
    assert queue.limit("light") is Limit.KEY
    assert queue.limit("third") is None


async def test_places_come_back_to_those_who_hold_few():
    """When a place gets free the flooding key is still refused and a light one is not."""
    queue = filled(JobQueue(10, shared=True), *[job("flood") for _ in range(8)])
    filled(queue, job("light"), job("third"))
    queue.get_nowait()
    assert queue.held("flood") >= SPARE * queue.free
    assert (queue.limit("flood"), queue.limit("light")) == (Limit.KEY, None)


async def test_a_queue_without_bound_refuses_nobody():
    """As with ``asyncio.Queue``, 0 is no bound."""
    queue = filled(JobQueue(shared=True), *[job() for _ in range(100)])
    assert queue.limit("anonymous") is None


async def test_a_put_waits_for_a_place():
    """``put`` into a full queue goes on when a job is taken or discarded."""
    queue, first, second, third = JobQueue(1), job(), job(), job()
    queue.put_nowait(first)
    putters = [asyncio.create_task(queue.put(each)) for each in (second, third)]
    await asyncio.sleep(0)
    assert await queue.get() is first
    await putters[0]
    queue.discard(second)
    await putters[1]
    assert queue.waiting == (third,)


async def test_every_waiting_getter_is_served():
    """Jobs go to the getters in the order in which these began to wait."""
    queue, jobs = JobQueue(), [job(), job()]
    getters = [asyncio.create_task(queue.get()) for _ in jobs]
    await asyncio.sleep(0)
    filled(queue, *jobs)
    assert await asyncio.gather(*getters) == jobs


async def test_join_ends_with_the_last_job():
    """Jobs that were put back or discarded are neither counted twice nor waited for."""
    queue = filled(JobQueue(), job(), job())
    joined = asyncio.create_task(queue.join())
    queue.put_back(queue.get_nowait())
    queue.discard(queue.waiting[1])
    queue.get_nowait()
    await asyncio.sleep(0)
    assert not joined.done()
    queue.task_done()
    await joined
    with pytest.raises(ValueError, match="too many"):
        queue.task_done()


async def test_an_unfinished_job_that_leaves_the_engine_is_refunded():
    """A key gets back what its cancelled job had left."""
    queue = filled(JobQueue(), *[job(key) for key in "aaabbb"])
    cancelled = queue.get_nowait()
    cancelled.steps_done = 0
    queue.refund(cancelled)
    assert [each.owner for each in queue.waiting] == list("ababb")


async def test_an_interrupted_job_is_refunded_the_steps_that_it_did_not_do(monkeypatch):
    """Its images were decoded, which it pays for; one that came too late for it gets nothing."""
    queue = filled(JobQueue(), job("a"), job("a"))
    refunds: list[int] = []
    monkeypatch.setattr(queue._lanes, "refund", lambda _owner, left: refunds.append(left))
    for after in (5, None):
        early = queue.get_nowait()
        early.steps_done = early.request.steps
        result = JobFinished(job_id=early.id, epoch=1, images=(), interrupted_after=after)
        early.draw(result, "fake-1")
        if early.interrupted:
            queue.refund(early)
    steps = early.request.steps - 5
    assert refunds == [early.request.width * early.request.height * steps]


async def test_a_promised_place_may_be_beyond_the_share_and_not_beyond_the_bound():
    """A key that holds its share gets the place it was promised, as long as there is one."""
    queue = filled(JobQueue(10, shared=True), *[job("flood") for _ in range(8)])
    with pytest.raises(asyncio.QueueFull):
        queue.put_nowait(job("flood"))
    queue.put_promised(job("flood"))
    queue.put_promised(job("flood"))
    assert queue.free == 0
    with pytest.raises(asyncio.QueueFull):
        queue.put_promised(job("flood"))


async def test_what_was_taken_waits_no_more():
    """The line and its version follow each change."""
    queue = filled(JobQueue(), first := job(), second := job())
    seen = {queue.version}
    assert list(queue.waiting) == [first, second]
    queue.get_nowait()
    assert list(queue.waiting) == [second]
    seen.add(queue.version)
    queue.put_back(first)
    assert list(queue.waiting) == [first, second]
    seen.add(queue.version)
    assert len(seen) == 3


async def test_who_comes_after_a_job_that_was_put_back_waits_behind_it():
    """Only jobs that were served before go before all others."""
    queue = filled(JobQueue(3), returned := job(), other := job())
    queue.put_back(queue.get_nowait())
    queue.put_nowait(short := job(steps=1))
    assert queue.waiting == (returned, short, other)


async def test_no_place_is_given_that_there_is_not():
    """Whether or not the queue is shared; a queue of one place has one."""
    for shared in (False, True):
        queue = JobQueue(1, shared=shared)
        assert [queue.admits(held=0, free=free) for free in (-1, 0, 1)] == [False, False, True]
