"""What every job store keeps, and who sees it."""

import asyncio
import sqlite3

import pytest

from service.core.outcome import Delivery, DeliveryState
from service.errors import NotFound, OutOfMemory, ValidationFailed
from service.jobs.job import FINAL, JobState, new_id
from service.jobs.store.base import JobEnd, StoreFigures, Used
from tests.unit.jobs.rows import ended, stored

SUCCEEDED, FAILED, CANCELLED = JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED
QUEUED, RUNNING = JobState.QUEUED, JobState.RUNNING


async def test_a_job_is_found_by_its_id_and_its_key_only(store):
    """To another key it does not exist, in the same words as one that never did."""
    kept = stored(metadata={"seed": 4}, deadline_at=990.0, trace_id="ab" * 16, api="sdapi")
    assert await store.add(kept) == kept
    assert await store.get(kept.id, "anna") == kept
    with pytest.raises(NotFound) as of_another:
        await store.get(kept.id, "bert")
    with pytest.raises(NotFound) as of_nobody:
        await store.get(new_id(), "bert")
    assert of_another.value.detail == of_nobody.value.detail


async def test_a_job_begins_waits_again_and_ends(store, clock):
    """Attempts are counted over all of it; the times are those of the clock."""
    kept = await store.add(stored())
    clock.now = 1_001.0
    assert await store.begin(kept.id, 1)
    assert await store.requeue(kept.id, 1)
    clock.now = 1_002.0
    assert await store.begin(kept.id, 2)
    running = await store.get(kept.id, "anna")
    assert (running.state, running.attempts, running.started_at) == (RUNNING, 2, 1_002.0)
    clock.now = 1_003.0
    assert await store.finish(
        kept.id,
        JobEnd(state=SUCCEEDED, steps_done=20, metadata={"seed": 7}, model_version="demo@1"),
    )
    ended = await store.get(kept.id, "anna")
    assert (ended.state, ended.finished_at, ended.steps_done) == (SUCCEEDED, 1_003.0, 20)
    assert (ended.metadata, ended.model_version, ended.error_code) == ({"seed": 7}, "demo@1", "")
    assert ended.final


async def test_a_failure_keeps_its_code_and_its_words(store):
    """They are told to whoever asks later."""
    kept = await store.add(stored())
    assert await store.finish(kept.id, JobEnd(state=FAILED, error=OutOfMemory("Try 512x512.")))
    ended = await store.get(kept.id, "anna")
    assert (ended.error_code, ended.error_detail) == ("out_of_memory", "Try 512x512.")


@pytest.mark.parametrize("state", sorted(FINAL))
async def test_a_job_ends_once(store, state):
    """Of any number of ends at the same moment one is told that it was the one."""
    kept = await store.add(stored())
    told = await asyncio.gather(*(store.finish(kept.id, JobEnd(state=state)) for _ in range(20)))
    assert sorted(told) == [False] * 19 + [True]
    assert not await store.begin(kept.id, 1)
    assert not await store.requeue(kept.id, 1)
    assert not await store.finish(kept.id, JobEnd(state=SUCCEEDED))
    assert (await store.get(kept.id, "anna")).state == state


async def test_what_is_no_end_ends_nothing(store):
    """A mistake in the program is told at once."""
    kept = await store.add(stored())
    with pytest.raises(ValueError, match="cannot end as running"):
        await store.finish(kept.id, JobEnd(state=RUNNING))
    assert not await store.finish(new_id(), JobEnd(state=SUCCEEDED))
    assert not await store.begin(new_id(), 1)


async def test_an_id_is_given_out_once(store):
    """Two jobs with one id are a mistake of ours, not of the file."""
    kept = await store.add(stored())
    with pytest.raises((sqlite3.IntegrityError, ValueError)):
        await store.add(stored(id=kept.id))
    assert (await store.counts())[QUEUED] == 1


async def test_an_idempotency_key_brings_back_the_first_job(store):
    """Of many at the same moment one is kept; the digest tells a replay from a conflict."""
    jobs = [stored(idempotency_key="once", idempotency_digest=f"d{i}") for i in range(20)]
    stand = await asyncio.gather(*(store.add(one) for one in jobs))
    assert {one.id for one in stand} == {jobs[0].id}
    assert stand[-1].idempotency_digest == "d0"
    assert (await store.counts())[QUEUED] == 1


async def test_idempotency_keys_of_two_api_keys_are_two(store):
    """Nobody meets another's job by guessing its idempotency key."""
    jobs = [
        stored("anna", idempotency_key="1"),
        stored("bert", idempotency_key="1"),
        stored(),
        stored(),
    ]
    assert [await store.add(one) for one in jobs] == jobs


async def test_an_idempotency_key_can_be_let_go_when_its_job_is_over(store):
    """Then it stands for another; the first job stays what it was."""
    first = await store.add(stored(idempotency_key="once", idempotency_digest="a"))
    assert not await store.release(first.id)
    await store.finish(first.id, JobEnd(state=FAILED))
    assert await store.release(first.id)
    assert await store.find("anna", "once") is None
    second = stored(idempotency_key="once", idempotency_digest="b")
    assert await store.add(second) == second
    assert (await store.get(first.id, "anna")).state is FAILED


async def test_an_idempotency_key_is_looked_up_for_its_api_key(store):
    """Before a job is put into the queue, to see whether it has to be."""
    kept = await store.add(stored(idempotency_key="once"))
    assert await store.find("anna", "once") == kept
    assert await store.find("bert", "once") is None
    assert await store.find("anna", "twice") is None


async def test_an_end_may_let_its_idempotency_key_go(store):
    """Then the next job takes it; else it stands for the one that ended."""
    for forget_key in (True, False):
        kept = await store.add(stored(idempotency_key="1"))
        assert await store.finish(kept.id, JobEnd(state=FAILED, forget_key=forget_key))
        found = await store.find("anna", "1")
        assert (found is None) is forget_key
    assert found.idempotency_digest == kept.idempotency_digest


async def test_pages_show_the_newest_first_and_each_job_once(store):
    """Whatever comes or goes between two pages, nothing is shown twice or left out."""
    ids = [(await store.add(stored(created_at=50.0 - i))).id for i in range(7)]
    await store.add(stored("bert"))
    first = await store.page("anna", limit=3)
    assert [one.id for one in first.jobs] == ids[:3:-1]
    newer = await store.add(stored())
    await store.finish(ids[4], JobEnd(state=SUCCEEDED))
    assert await store.expire(ids=[ids[4]]) == [ids[4]]  # The last one that was shown.
    second = await store.page("anna", limit=3, cursor=first.cursor)
    third = await store.page("anna", limit=3, cursor=second.cursor)
    assert [one.id for one in (*second.jobs, *third.jobs)] == ids[3::-1]
    assert third.cursor is None
    assert (await store.page("anna", limit=1)).jobs[0].id == newer.id


async def test_a_page_that_ends_with_the_last_job_is_the_last_page(store):
    """No client is sent for an empty page."""
    for _ in range(2):
        await store.add(stored())
    assert (await store.page("anna", limit=2)).cursor is None
    assert (await store.page("nobody", limit=50)).jobs == ()


async def test_pages_can_be_of_one_state(store):
    """Such as everything that failed."""
    ids = [(await store.add(stored())).id for _ in range(4)]
    await store.finish(ids[1], JobEnd(state=FAILED))
    await store.finish(ids[3], JobEnd(state=FAILED))
    page = await store.page("anna", state=FAILED, limit=1)
    assert [one.id for one in page.jobs] == [ids[3]]
    page = await store.page("anna", state=FAILED, limit=1, cursor=page.cursor)
    assert ([one.id for one in page.jobs], page.cursor) == ([ids[1]], None)


@pytest.mark.parametrize("cursor", ["", "nonsense", "'; DROP TABLE jobs; --", "0" * 32])
async def test_a_cursor_of_nobody_or_of_another_key_is_refused(store, cursor):
    """It tells nothing of other keys, not even that they have jobs."""
    theirs = await store.add(stored("bert"))
    for wrong in (cursor, theirs.id):
        with pytest.raises(ValidationFailed, match="cursor"):
            await store.page("anna", cursor=wrong, limit=50)


async def test_what_is_unfinished_comes_back_in_the_order_of_acceptance(store):
    """The time of day may have jumped; the order does not ask it."""
    ids = [(await store.add(stored(created_at=at))).id for at in (9e9, 5.0, 0.0, 7e8, 6.0)]
    await store.begin(ids[3], 1)
    await store.finish(ids[1], JobEnd(state=CANCELLED))
    unfinished = await store.unfinished()
    assert [one.id for one in unfinished] == [ids[0], ids[2], ids[3], ids[4]]
    assert [one.attempts for one in unfinished] == [0, 0, 1, 0]


async def test_the_state_of_a_webhook_is_kept(store):
    """What is not delivered when the service ends is asked for at the next start."""
    kept, silent = await store.add(stored(webhook="https://a.org/")), await store.add(stored())
    assert await store.undelivered() == []  # There is nothing to tell yet.
    await store.finish(kept.id, JobEnd(state=SUCCEEDED))
    await store.finish(silent.id, JobEnd(state=SUCCEEDED))
    tried = Delivery(attempts=2, status=503, detail="the receiver was not ready")
    assert await store.deliver(kept.id, tried)
    assert [one.delivery for one in await store.undelivered()] == [tried]
    done = Delivery(state=DeliveryState.DELIVERED, attempts=3, status=200)
    assert await store.deliver(kept.id, done)
    assert (await store.get(kept.id, "anna")).delivery == done
    assert await store.undelivered() == []
    assert not await store.deliver(silent.id, done)


async def test_counts_are_of_one_key_or_of_all(store):
    """States that no job is in are there, with 0."""
    ids = [(await store.add(stored())).id for _ in range(3)]
    await store.add(stored("bert"))
    await store.begin(ids[0], 1)
    await store.finish(ids[1], JobEnd(state=FAILED))
    none = dict.fromkeys(JobState, 0)
    assert await store.counts() == {**none, QUEUED: 2, RUNNING: 1, FAILED: 1}
    assert await store.counts("bert") == {**none, QUEUED: 1}
    await store.expire(ids=[ids[1]])
    assert (await store.counts())[FAILED] == 0


async def test_what_an_end_costs_is_written_with_it(store):
    """Once, by the end that counts, in the minute of the acceptance."""
    one, two = await store.add(stored()), await store.add(stored())
    assert await store.finish(one.id, JobEnd(state=SUCCEEDED, paid=4))
    assert not await store.finish(one.id, JobEnd(state=SUCCEEDED, paid=4))
    assert await store.finish(two.id, JobEnd(state=CANCELLED, paid=1))
    assert await store.finish((await store.add(stored("bert"))).id, JobEnd(state=FAILED))
    assert await store.usage(0) == [("anna", int(one.created_at // 60), 5)]


async def test_what_owners_used_is_added_up_and_forgotten_after_its_time(store):
    """By minute; what is older than was asked for is never asked for again."""
    await store.add_usage([Used("bert", 15, 1), Used("anna", 16, 2), Used("anna", 15, 1)])
    await store.add_usage([Used("anna", 15, 4)])
    used = [Used("anna", 15, 5), Used("anna", 16, 2), Used("bert", 15, 1)]
    assert sorted(await store.usage(15)) == used
    assert await store.usage(16) == [Used("anna", 16, 2)]
    assert await store.usage(0) == [Used("anna", 16, 2)]


async def test_figures_tell_what_is_not_delivered_and_since_when(store, clock):
    """Only jobs that are over count, and the first of them tells the age."""
    hook = {"webhook": "https://example.org/"}
    await store.add(stored(**hook))
    assert await store.figures() == StoreFigures(undelivered=0, undelivered_since=None, set_aside=0)
    await ended(store, "anna", SUCCEEDED, **hook)
    clock.now += 5
    await ended(store, "bert", FAILED, **hook)
    await ended(store, "bert", FAILED)
    assert await store.figures() == StoreFigures(
        undelivered=2, undelivered_since=1_000.0, set_aside=0
    )
    assert await store.set_aside() == 0
    await store.check()
