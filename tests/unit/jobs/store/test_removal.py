"""What every job store removes of an owner, and what is left in the file."""

import sqlite3

import pytest

from service.errors import NotFound
from service.jobs.job import JobState
from service.jobs.store.base import JobEnd, Used
from tests.unit.jobs.rows import ended, shown, stored

PROMPT = "a prompt that nobody else may read"


async def test_the_jobs_of_an_owner_are_removed(store):
    """Those that are over or expired; not others', and not those that are not over."""
    over = await ended(store, "anna")
    expired = await ended(store, "anna", JobState.SUCCEEDED)
    await store.expire(ids=[expired])
    waits = await store.add(stored())
    other = await ended(store, "ben")
    assert set(await store.remove("anna")) == {over, expired}
    for job_id in (over, expired):
        with pytest.raises(NotFound):
            await store.get(job_id, "anna")
    assert (await shown(store, "anna"), await shown(store, "ben")) == ([waits.id], [other])
    assert await store.remove("anna", unfinished=True) == [waits.id]
    assert await store.remove("anna") == []


async def test_an_idempotency_key_is_free_again(store):
    """Nothing stands for it any more."""
    await ended(store, "anna", idempotency_key="one")
    await store.remove("anna")
    assert await store.find("anna", "one") is None


async def test_what_was_used_stays_counted(store):
    """Else a caller could begin its quota anew."""
    job = await store.add(stored())
    await store.finish(job.id, JobEnd(state=JobState.SUCCEEDED, paid=2))
    await store.remove("anna")
    assert await store.usage(0) == [Used("anna", 15, 2)]


async def test_no_copy_of_a_removed_prompt_is_left_in_the_files(sqlite):
    """Neither in free pages, nor in the journal, nor among the rows that were set aside."""
    for number in range(20):
        await ended(sqlite, "anna", prompt=f"{PROMPT} {number}")
    damaged = await ended(sqlite, "anna", prompt=PROMPT)
    kept = await ended(sqlite, "ben", prompt="what ben asked for")
    with sqlite3.connect(sqlite._database.path) as other:
        other.execute("UPDATE jobs SET attempts = 'many' WHERE id = ?", (damaged,))
    other.close()
    assert await sqlite.set_aside() == 1
    assert PROMPT.encode() in _files(sqlite)
    await sqlite.remove("anna")
    assert await sqlite.set_aside() == 0
    assert PROMPT.encode() not in _files(sqlite)
    assert b"what ben asked for" in _files(sqlite)
    assert await shown(sqlite, "ben") == [kept]


def _files(store) -> bytes:
    path = store._database.path
    return b"".join(each.read_bytes() for each in path.parent.glob(f"{path.name}*"))
