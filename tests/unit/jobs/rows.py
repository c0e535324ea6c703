"""Rows for a job store, and what it shows of them."""

from service.core.spec import GenerationSpec
from service.jobs.job import JobState, new_id
from service.jobs.store.base import JobEnd, JobStore
from service.jobs.store.stored import StoredJob


class Clock:
    """Time that a test sets."""

    def __init__(self, now: float = 1_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def stored(key: str = "anna", prompt: str = "a boat", **values) -> StoredJob:
    made = {"id": new_id(), "created_at": 900.0, **values}
    return StoredJob(owner=key, request=GenerationSpec(prompt=prompt), **made)


async def ended(store: JobStore, key: str, state: JobState = JobState.CANCELLED, **values) -> str:
    """Keep a job that is over, and return its id."""
    kept = await store.add(stored(key, **values))
    await store.finish(kept.id, JobEnd(state=state))
    return kept.id


async def shown(store: JobStore, key: str) -> list[str]:
    """Return the ids of a page that holds all."""
    return [each.id for each in (await store.page(key, limit=100)).jobs]
