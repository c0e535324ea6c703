"""What every job store forgets, when, and what is left of it."""

from dataclasses import asdict

import pytest

from service.core.outcome import Delivery, DeliveryState
from service.errors import JobExpired, NotFound, OutOfMemory
from service.jobs.job import JobState
from service.jobs.store.base import JobEnd
from tests.support.jobs.memory_store import MemoryStore
from tests.unit.jobs.rows import ended, shown, stored

SUCCEEDED, FAILED, CANCELLED = JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED


async def test_what_expired_is_gone_and_not_unknown(store, clock):
    """Its prompt and its address are wiped, and its idempotency key is free again."""
    old, young = [
        await store.add(stored(idempotency_key=name, webhook="https://a.org/")) for name in "ab"
    ]
    running = await store.add(stored())
    await store.begin(running.id, 1)
    await store.finish(old.id, JobEnd(state=SUCCEEDED, metadata={"prompt": "a boat"}))
    clock.now += 100
    await store.finish(young.id, JobEnd(state=SUCCEEDED))
    assert await store.expire(max_age_seconds=50) == [old.id]
    assert await store.expire(max_age_seconds=50) == []
    with pytest.raises(JobExpired):
        await store.get(old.id, "anna")
    with pytest.raises(NotFound):
        await store.get(old.id, "bert")
    assert [one.id for one in (await store.page("anna", limit=50)).jobs] == [running.id, young.id]
    assert [one.id for one in await store.undelivered()] == [young.id]
    assert await store.with_images() == {young.id, running.id}
    again = stored(idempotency_key="a")
    assert await store.add(again) == again


async def test_an_unfinished_job_never_expires(store, clock):
    """However long it waits, and whoever asks."""
    kept = await store.add(stored(created_at=0.0))
    clock.now = 9e9
    assert await store.expire(max_age_seconds=1, ids=[kept.id]) == []
    assert [one.id for one in await store.unfinished()] == [kept.id]


async def test_expired_jobs_are_forgotten_after_their_time(store, clock):
    """Ids are small, but not nothing."""
    kept = await store.add(stored())
    await store.finish(kept.id, JobEnd(state=SUCCEEDED))
    await store.expire(ids=[kept.id])
    assert await store.purge(10, most=10) == 0
    clock.now += 11
    assert await store.purge(10, most=10) == 1
    with pytest.raises(NotFound):
        await store.get(kept.id, "anna")


async def test_jobs_without_images_are_kept_for_their_time(store, clock):
    """Then they are expired and not unknown; those with images, and unfinished ones, stay."""
    old = [await ended(store, "anna", state) for state in (FAILED, CANCELLED)]
    with_images = await ended(store, "anna", SUCCEEDED)
    waiting = (await store.add(stored())).id
    clock.now += 100
    young = await ended(store, "anna")
    assert await store.expire_without_images(max_age_seconds=50, most=10) == 2
    assert await shown(store, "anna") == [young, waiting, with_images]
    for each in old:
        with pytest.raises(JobExpired):
            await store.get(each, "anna")


async def test_a_key_with_many_jobs_without_images_takes_none_from_others(store):
    """Beyond the bound the oldest of the keys with most go, however much they have."""
    few = [await ended(store, "bert") for _ in range(2)]
    many = [await ended(store, "anna") for _ in range(20)]
    assert await store.expire_without_images(max_age_seconds=50, most=7) == 15
    assert await shown(store, "bert") == few[::-1]
    assert await shown(store, "anna") == many[:-6:-1]
    assert await store.expire_without_images(max_age_seconds=50, most=3) == 4
    assert await shown(store, "bert") == [few[1]]
    assert await shown(store, "anna") == many[:-3:-1]


async def test_a_job_whose_webhook_is_on_its_way_is_kept(store):
    """Else a restart would not send it."""
    told = await ended(store, "anna", FAILED, webhook="https://example.org/")
    assert await store.expire_without_images(max_age_seconds=0, most=1) == 0
    await store.deliver(told, Delivery(state=DeliveryState.DELIVERED, attempts=1))
    await ended(store, "anna")
    assert await store.expire_without_images(max_age_seconds=50, most=1) == 1


async def test_ids_of_expired_jobs_are_bounded(store):
    """The newest are remembered, and jobs that are not expired are no part of it."""
    kept = await ended(store, "anna", SUCCEEDED)
    gone = [await ended(store, "anna") for _ in range(4)]
    await store.expire(ids=gone)
    assert await store.purge(1000, most=3) == 1
    with pytest.raises(NotFound):
        await store.get(gone[0], "anna")
    with pytest.raises(JobExpired):
        await store.get(gone[1], "anna")
    assert await shown(store, "anna") == [kept]


async def test_memory_keeps_nothing_that_a_client_wrote_of_an_expired_job(clock):
    """Like the file, it remembers an id, its owner and its place."""
    store = MemoryStore(clock=clock)
    kept = await store.add(
        stored(prompt="private", webhook="https://a.org/private", idempotency_key="private")
    )
    await store.finish(
        kept.id, JobEnd(state=FAILED, error=OutOfMemory("private"), metadata={"p": "private"})
    )
    await store.deliver(kept.id, Delivery(detail="private"))
    await store.expire(ids=[kept.id])
    assert "private" not in str([asdict(job) for job in store._jobs.values()])
