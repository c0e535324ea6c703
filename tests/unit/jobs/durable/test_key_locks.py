"""Who is first of requests with one idempotency key."""

import asyncio

import pytest

from service.core.spec import GenerationSpec
from service.jobs.durable.key_locks import KeyLocks
from service.jobs.store.stored import StoredJob


def job(key: str, idempotency_key: str | None) -> StoredJob:
    """Return a new job of a key."""
    return StoredJob(
        id="1",
        owner=key,
        request=GenerationSpec(prompt="a cat"),
        created_at=1.0,
        idempotency_key=idempotency_key,
    )


@pytest.mark.parametrize(
    ("other", "waits"),
    [
        (job("alice", "a"), True),
        (job("alice", "b"), False),
        (job("bob", "a"), False),
        (job("alice", None), False),
    ],
)
async def test_only_the_same_key_waits(other, waits):
    """And nothing is kept of keys that nobody waits with."""
    turns, inside = KeyLocks(), asyncio.Event()

    async def second():
        async with turns.of(other):
            inside.set()

    async with turns.of(job("alice", "a")):
        task = asyncio.create_task(second())
        for _ in range(3):
            await asyncio.sleep(0)
        assert inside.is_set() is not waits
    await task
    assert inside.is_set()
    assert not turns._locks


async def test_two_without_a_key_wait_for_nobody():
    """Not for each other either."""
    turns, nobody = KeyLocks(), job("alice", None)
    async with asyncio.timeout(20), turns.of(nobody), turns.of(nobody):
        pass
