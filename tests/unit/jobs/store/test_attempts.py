"""What an attempt may still write when a later one has begun."""

from typing import Any

import pytest

from service.core.outcome import Delivery
from service.errors import OutOfMemory
from service.jobs.job import FINAL, JobState
from service.jobs.store.base import JobEnd
from tests.unit.jobs.rows import stored


@pytest.fixture
async def overtaken(store):
    """Keep a job whose first attempt was lost and whose second one runs."""
    kept = await store.add(stored(webhook="https://example.org/"))
    assert await store.begin(kept.id, 1)
    assert await store.requeue(kept.id, 1)
    assert await store.begin(kept.id, 2)
    return await store.get(kept.id, "anna")


@pytest.mark.parametrize("state", sorted(FINAL))
async def test_a_lost_attempt_ends_nothing(store, overtaken, state):
    """Its end is refused, whichever it is, and costs nothing; that of the second counts."""
    late: dict[str, Any] = {
        "error": OutOfMemory("late"),
        "metadata": {"seed": 1},
        "paid": 3,
        "forget_key": True,
    }
    assert not await store.finish(overtaken.id, JobEnd(state=state, epoch=1, **late))
    assert await store.get(overtaken.id, "anna") == overtaken
    assert await store.usage(0) == []
    assert await store.finish(overtaken.id, JobEnd(state=state, epoch=2))
    assert not await store.finish(overtaken.id, JobEnd(state=state, epoch=2))


async def test_a_lost_attempt_takes_the_job_from_no_other(store, overtaken):
    """Neither as lost once more nor as stopped."""
    assert not await store.requeue(overtaken.id, 1)
    assert not await store.hand_back(overtaken.id, 1)
    assert await store.get(overtaken.id, "anna") == overtaken


async def test_an_attempt_that_is_handed_back_does_not_count(store, overtaken):
    """Whoever waits has lost none; its epoch is used up, and the next one has another."""
    assert await store.hand_back(overtaken.id, 2)
    waits = await store.get(overtaken.id, "anna")
    assert (waits.state, waits.attempts, waits.started_at) == (JobState.QUEUED, 1, None)
    assert not await store.hand_back(overtaken.id, 1)
    assert await store.hand_back(overtaken.id, 2)
    waits = await store.get(overtaken.id, "anna")
    assert (waits.attempts, waits.epoch) == (1, 2)
    assert not await store.begin(overtaken.id, 2)
    assert await store.begin(overtaken.id, 3)
    begun = await store.get(overtaken.id, "anna")
    assert (begun.attempts, begun.epoch) == (2, 3)


async def test_an_attempt_that_went_on_is_not_counted_again(store, overtaken):
    """It was taken for lost, and was not; no earlier one comes back."""
    assert await store.requeue(overtaken.id, 2)
    assert not await store.resume(overtaken.id, 1)
    assert await store.resume(overtaken.id, 2)
    runs = await store.get(overtaken.id, "anna")
    assert (runs.state, runs.attempts, runs.epoch) == (JobState.RUNNING, 2, 2)
    assert runs.started_at is not None
    assert await store.finish(overtaken.id, JobEnd(state=JobState.SUCCEEDED, epoch=2))
    assert not await store.resume(overtaken.id, 2)


async def test_an_attempt_that_went_on_and_whose_begin_was_not_written_is_counted(store):
    """Once: the row has its epoch then, and no other attempt can have it."""
    kept = await store.add(stored())
    assert await store.resume(kept.id, 2)
    assert await store.resume(kept.id, 2)
    runs = await store.get(kept.id, "anna")
    assert (runs.state, runs.attempts, runs.epoch) == (JobState.RUNNING, 1, 2)
    assert not await store.begin(kept.id, 2)


async def test_what_belongs_to_no_attempt_is_never_late(store, overtaken):
    """The owner cancels a job, whoever runs it; a delivery comes after all of them."""
    assert await store.finish(overtaken.id, JobEnd(state=JobState.CANCELLED))
    assert await store.deliver(overtaken.id, Delivery(attempts=1))
    assert (await store.get(overtaken.id, "anna")).state is JobState.CANCELLED


async def test_an_attempt_whose_begin_was_not_written_may_end(store):
    """The disk did not take it then; nobody else has begun the job."""
    kept = await store.add(stored())
    assert await store.finish(kept.id, JobEnd(state=JobState.SUCCEEDED, epoch=1))


async def test_no_epoch_is_used_again_though_its_begin_was_not_written(store):
    """Whatever an attempt writes tells the next process which number it had."""
    for left in (store.requeue, store.hand_back):
        kept = await store.add(stored())
        assert await left(kept.id, 4)
        waits = await store.get(kept.id, "anna")
        assert (waits.attempts, waits.epoch) == (0, 4)
        assert not await store.begin(kept.id, 4)
