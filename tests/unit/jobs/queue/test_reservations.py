"""Reservations that were promised to those who found the queue full."""

import pytest

from service.core.spec import GenerationSpec
from service.jobs.job import Job
from service.jobs.queue.queue import JobQueue, Limit
from service.jobs.queue.reservations import MOST_PROMISES, Reservations

STARTS = [10.0, 20.0]


def job(prompt: str = "a cat", key: str = "a", seed: int = 0) -> Job:
    return Job(request=GenerationSpec(prompt=prompt, seed=seed), owner=key)


def full(*keys: str, places: int = 2, shared: bool = False) -> JobQueue:
    queue = JobQueue(places, shared=shared)
    for key in keys or "aa":
        queue.restore(job("waits", key))
    return queue


async def test_a_place_is_free_when_the_next_job_starts():
    """The first refused client comes back when the first waiting job starts."""
    assert Reservations(full()).retry_after(job(), STARTS, 0) == 10


async def test_each_further_refused_client_is_sent_later():
    """No two are told the same place; beyond the line, places come as fast as in it."""
    places = Reservations(full())
    assert [places.retry_after(job(), STARTS, 0) for _ in range(4)] == [10, 20, 30, 40]


async def test_a_client_that_comes_back_in_time_gets_its_place():
    """The same request of the same key redeems its promise, once, whatever its seed."""
    queue = full()
    places = Reservations(queue)
    places.retry_after(job("mine"), STARTS, 0)
    queue.get_nowait()
    mine = job("mine", seed=5)
    assert places.limit(mine, lambda: [10.0], 10) is None
    places.enter(mine, 10)
    queue.get_nowait()
    assert places.limit(job("other"), lambda: [10.0], 10) is None


async def test_a_newcomer_does_not_take_a_promised_place():
    """A free place that somebody was told to come back for is kept."""
    queue = full()
    places = Reservations(queue)
    places.retry_after(job("mine"), STARTS, 0)
    queue.get_nowait()
    assert places.limit(job("other"), lambda: [10.0], 9) is Limit.PROMISED
    assert places.limit(job("mine"), lambda: [10.0], 8) is Limit.PROMISED


async def test_a_newcomer_may_take_a_place_that_will_be_free_again():
    """A promise is kept by number: if another place comes in time, this one can be taken."""
    queue = full()
    places = Reservations(queue)
    places.retry_after(job("mine"), STARTS, 0)
    queue.get_nowait()
    assert places.limit(job("other"), lambda: [2.0], 5) is None


async def test_a_promise_is_given_up_after_a_while():
    """A client that does not come back blocks its place no longer than the grace."""
    queue = full()
    places = Reservations(queue)
    places.retry_after(job("mine"), STARTS, 0)
    queue.get_nowait()
    assert places.limit(job("other"), lambda: [9.0], 12.9) is Limit.PROMISED
    assert places.limit(job("other"), lambda: [9.0], 13.1) is None


async def test_an_empty_queue_refuses_nobody():
    """The engine never stands idle for the sake of a promise."""
    queue = full("a", places=1)
    places = Reservations(queue)
    places.retry_after(job("mine"), [10.0], 0)
    queue.get_nowait()
    assert places.limit(job("other"), list, 10) is None


async def test_whoever_finds_its_promise_broken_goes_before_those_refused_later():
    """Steps that took longer than expected do not send a client to the end of the line."""
    places = Reservations(full())
    told = [places.retry_after(job(name), STARTS, 0) for name in ("first", "second", "third")]
    assert told == [10, 20, 30]
    assert places.limit(job("first"), lambda: [2.0, 9.0], 10) is Limit.QUEUE
    assert places.retry_after(job("first"), [2.0, 9.0], 10) == 2


async def test_nobody_is_sent_back_at_once():
    """Even with nearly nothing left to do, a client waits a second."""
    assert Reservations(full()).retry_after(job(), [0.0, 0.1], 0) == 1


async def test_promises_are_bounded():
    """A client that asks again and again uses up the promises, not the memory."""
    places = Reservations(full())
    told = [places.retry_after(job(), STARTS, 0) for _ in range(300)]
    assert told[-1] == max(told) == 10 * (MOST_PROMISES * 2 + 1)
    assert len(places._promises) == MOST_PROMISES * 2


async def test_a_key_at_its_share_waits_until_it_has_a_place():
    """A flooding key is told when its own limit lets it in, not when any place is free."""
    queue = full(*"aaaaaaaabb", places=10, shared=True)
    starts = [float(10 * number) for number in range(1, 11)]
    assert Reservations(queue).retry_after(job(key="a"), starts, 0) == 20
    assert Reservations(queue).retry_after(job(key="b"), starts, 0) == 10


async def test_promises_of_one_key_do_not_keep_out_another():
    """A light key finds its place however many of a flooding key were refused."""
    queue = full(*"aaaaaaaa", places=10, shared=True)
    places = Reservations(queue)
    starts = [float(10 * number) for number in range(1, 9)]
    for _ in range(50):
        places.retry_after(job(), starts, 0)
    assert places.limit(job(key="b"), lambda: starts, 0) is None


@pytest.mark.parametrize("count", [1, 2])
async def test_without_a_refusal_the_line_is_not_worked_out(count):
    """While nobody was refused, a place is a place."""
    queue = full(*"a" * count, places=3)

    def never() -> list[float]:
        raise AssertionError

    assert Reservations(queue).limit(job(), never, 0) is None


async def test_a_flood_of_one_key_leaves_promises_to_others():
    """When there are too many promises, the key with most gives up its last one."""
    queue = full("a", "b", places=2)
    places = Reservations(queue)
    told = [places.retry_after(job(f"{n}"), STARTS, 0) for n in range(MOST_PROMISES * 2)]
    back = places.retry_after(job("mine", "b"), STARTS, 0)
    assert back < told[-1]
    queue.get_nowait()
    assert places.limit(job("other", "b"), lambda: [10.0], back - 1) is Limit.PROMISED
    assert places.limit(job("mine", "b"), lambda: [10.0], back - 1) is None
    last = job(f"{MOST_PROMISES * 2 - 1}")
    assert places.limit(last, lambda: [told[-1] + 10.0], told[-1]) is Limit.PROMISED


async def test_a_time_that_is_not_kept_is_none_that_is_near():
    """With too many promises the next client is told a time after all of them, each time."""
    places = Reservations(full())
    told = [places.retry_after(job(f"{n}"), STARTS, 0) for n in range(MOST_PROMISES * 2)]
    # The line has moved on faster than it was thought: a place is left before the first promise.
    later = [places.retry_after(job(f"late {n}"), [1.0, 2.0], 5) for n in range(2)]
    assert [seconds + 5 for seconds in later] == [told[-1] + 1] * 2


async def test_a_promise_is_kept_when_other_keys_have_come_since():
    """It counts more than its key's share of the places, but for the last free one."""
    queue = full(*"aaaaaaaaaaa", places=13, shared=True)
    places = Reservations(queue)
    mine, starts = job("mine"), [10.0 * n for n in range(1, 12)]
    assert places.limit(mine, lambda: starts, 0) is Limit.KEY
    assert places.retry_after(mine, starts, 0) == 10
    queue.get_nowait()
    queue.restore(job("waits", "b"))
    assert places.limit(job("other"), lambda: starts, 10) is Limit.KEY
    assert places.limit(mine, lambda: starts, 10) is None
    queue.restore(job("waits", "b"))
    assert places.limit(mine, lambda: starts, 10) is Limit.KEY
    queue.get_nowait()
    places.enter(mine, 10)
    assert queue.free == 1
    assert places.limit(mine, lambda: starts, 10) is Limit.KEY
