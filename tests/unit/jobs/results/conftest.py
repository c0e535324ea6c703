"""Each kind of result store, under a clock that a test sets."""

import pytest

from service.jobs.results.files import FileResults
from tests.support.jobs.memory_results import MemoryResults
from tests.unit.jobs.rows import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def folder(tmp_path, clock) -> FileResults:
    """Make a folder of images."""
    made = FileResults(tmp_path / "results", grace_seconds=10.0, clock=clock)
    await made.open()
    return made


@pytest.fixture(params=["memory", "files"])
def results(request, clock):
    """Return a store of each kind."""
    if request.param == "memory":
        return MemoryResults(grace_seconds=10.0, clock=clock)
    return request.getfixturevalue("folder")
