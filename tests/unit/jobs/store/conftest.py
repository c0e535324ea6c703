"""Each kind of job store, under a clock that a test sets."""

import pytest

from service.jobs.store.sqlite import SqliteStore
from tests.support.jobs.memory_store import MemoryStore
from tests.unit.jobs.rows import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def sqlite(tmp_path, clock):
    """Open a store in a folder of its own."""
    async with SqliteStore(tmp_path / "data" / "jobs.sqlite3", clock=clock) as opened:
        yield opened


@pytest.fixture(params=["memory", "sqlite"])
def store(request, clock):
    """Return a store of each kind."""
    if request.param == "memory":
        return MemoryStore(clock=clock)
    return request.getfixturevalue("sqlite")
