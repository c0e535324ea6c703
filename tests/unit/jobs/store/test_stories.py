"""Stories of random calls, which every job store tells the same way."""

import random
from collections import Counter
from typing import Any

import pytest

from service.core.outcome import Delivery, DeliveryState
from service.errors import OutOfMemory, ServiceError
from service.jobs.job import FINAL, new_id
from service.jobs.store.base import JobEnd, JobStore, Used
from service.jobs.store.stored import StoredJob
from tests.support.jobs.memory_store import MemoryStore
from tests.unit.jobs.rows import stored


class Model:
    """What the store should do, in a dictionary."""

    def __init__(self, store: JobStore, rng: random.Random) -> None:
        self.store, self.rng = store, rng
        self.jobs: dict[str, StoredJob | None] = {}
        self.epochs: Counter[str] = Counter()

    async def add(self, _: str) -> None:
        new = stored(
            self.rng.choice(["anna", "bert"]), idempotency_key=self.rng.choice([None, "1", "2"])
        )
        mine = (new.owner, new.idempotency_key)
        same = [
            one for one in self.jobs.values() if one and (one.owner, one.idempotency_key) == mine
        ]
        stands = await self.store.add(new)
        if new.idempotency_key and same:
            assert stands.id == same[0].id
        else:
            assert stands == new
            self.jobs[new.id] = new

    async def begin(self, known: str) -> None:
        epoch = self.epochs[known] + self.rng.choice([0, 1])
        later = epoch > self.epochs[known]
        assert await self.store.begin(known, epoch) == (self.is_open(known) and later)
        self.epochs[known] = epoch

    async def requeue(self, known: str) -> None:
        epoch = self.epochs[known] - self.rng.choice([0, 1])
        late = epoch < self.epochs[known]
        assert await self.store.requeue(known, epoch) == (self.is_open(known) and not late)

    async def finish(self, known: str) -> None:
        now = self.jobs.get(known)
        state = self.rng.choice(sorted(FINAL))
        assert await self.store.finish(known, JobEnd(state=state)) == self.is_open(known)
        if now is not None and not now.final:
            self.jobs[known] = await self.store.get(known, now.owner)

    async def expire(self, known: str) -> None:
        now = self.jobs.get(known)
        over = now is not None and now.final
        assert await self.store.expire(ids=[known]) == ([known] if over else [])
        if over:
            self.jobs[known] = None

    def is_open(self, known: str) -> bool:
        now = self.jobs.get(known)
        return now is not None and not now.final


async def listed(store: JobStore, key: str) -> list[str]:
    """Return the ids on all pages."""
    page = await store.page(key, limit=4)
    shown = list(page.jobs)
    while page.cursor is not None:
        page = await store.page(key, limit=4, cursor=page.cursor)
        shown += page.jobs
    return [one.id for one in shown]


@pytest.mark.parametrize("seed", range(8))
async def test_any_story_ends_as_a_simple_model_says(store, clock, seed):
    """Random calls under a clock that jumps: nothing lost, doubled, or seen by another."""
    rng = random.Random(seed)  # noqa: S311 - test values
    model = Model(store, rng)
    calls = [model.add, model.add, model.begin, model.requeue, model.finish, model.expire]
    for _ in range(120):
        clock.now += rng.choice([-500.0, 0.0, 1.0, 1e6])
        await rng.choice(calls)(rng.choice([*model.jobs, new_id()]))
    live = [one for one in model.jobs.values() if one is not None]
    left = [one.id for one in live if not one.final]
    assert [one.id for one in await store.unfinished()] == left
    for key in ("anna", "bert"):
        assert await listed(store, key) == [one.id for one in live if one.owner == key][::-1]


def calls(rng: random.Random, known: str):
    """Return a call of each method as its name and arguments."""
    owner, epoch = rng.choice(["anna", "bert"]), rng.choice([0, 1, 2, 9])
    state, delivered = rng.choice(sorted(FINAL)), rng.choice(list(DeliveryState))
    keys: dict[str, Any] = {
        "idempotency_key": rng.choice([None, "1", "2"]),
        "idempotency_digest": "d",
    }
    hook = rng.choice([None, "https://example.org/"])
    age = rng.choice([0.0, 5.0, 50.0])
    end: dict[str, Any] = {
        "model_version": "m@1",
        "epoch": rng.choice([None, epoch]),
        "paid": rng.choice([0, 2]),
        "steps_done": epoch,
    }
    more: dict[str, Any] = {
        "forget_key": rng.random() < 0.3,
        "metadata": rng.choice([None, {"seed": [epoch]}]),
    }
    error = rng.choice([None, OutOfMemory("Try 512x512.")])
    return {
        "add": ([stored(owner, webhook=hook, created_at=epoch * 60.0, **keys)], {}),
        "find": ([owner, "1"], {}),
        "begin": ([known, epoch], {}),
        "resume": ([known, epoch], {}),
        "requeue": ([known, epoch], {}),
        "hand_back": ([known, epoch], {}),
        "finish": ([known, JobEnd(state=state, error=error, **end, **more)], {}),
        "release": ([known], {}),
        "deliver": ([known, Delivery(state=delivered, attempts=epoch)], {}),
        "get": ([known, owner], {}),
        "page": (
            [owner],
            {"cursor": rng.choice([None, known]), "limit": 3, "state": rng.choice([None, state])},
        ),
        "unfinished": ([], {}),
        "undelivered": ([], {}),
        "with_images": ([], {}),
        "expire": ([], {"ids": [known], "max_age_seconds": rng.choice([None, age])}),
        "expire_without_images": ([], {"max_age_seconds": age, "most": 3}),
        "purge": ([age], {"most": 4}),
        "counts": ([rng.choice([None, owner])], {}),
        "figures": ([], {}),
        "add_usage": ([[Used(owner, epoch, 1)]], {}),
        "usage": ([epoch], {}),
    }


@pytest.mark.parametrize("seed", range(12))
async def test_memory_and_disk_tell_the_same_story(sqlite, clock, seed):
    """Every call returns or refuses the same in both."""
    rng, memory = random.Random(seed), MemoryStore(clock=clock)  # noqa: S311 - test values
    ids = [new_id()]

    async def said(store: JobStore, name: str, args, more):
        try:
            found = await getattr(store, name)(*args, **more)
        except ServiceError as error:
            return error.code, error.detail
        return sorted(found) if name in ("usage", "expire") else found

    for _ in range(300):
        clock.now += rng.choice([-3.0, 0.0, 1.0, 10.0])
        every = calls(rng, rng.choice(ids[-12:]))
        name = rng.choice(["add", "begin", "finish", *every])
        args, more = every[name]
        if name == "add":
            ids.append(args[0].id)
        assert await said(sqlite, name, args, more) == await said(memory, name, args, more), name
