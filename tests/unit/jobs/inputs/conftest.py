"""Each kind of input store, under a clock that a test sets."""

import pytest

from service.jobs.inputs.bounds import UploadBounds
from service.jobs.inputs.files import FileInputs
from service.jobs.inputs.memory import MemoryInputs
from tests.unit.jobs.rows import Clock

MOST = 10_000
EACH = 6_000


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def counted() -> list[str]:
    """Return what became of uploads, in its order."""
    return []


@pytest.fixture
async def folder(tmp_path, clock, counted) -> FileInputs:
    """Make a folder of input images."""
    bounds = UploadBounds(MOST, EACH)
    path = tmp_path / "data" / "inputs"
    made = FileInputs(path, bounds, grace_seconds=10.0, clock=clock, count=counted.append)
    await made.open()
    return made


@pytest.fixture(params=["memory", "files"])
def inputs(request, counted):
    """Return a store of each kind."""
    if request.param == "memory":
        return MemoryInputs(UploadBounds(MOST, EACH), count=counted.append)
    return request.getfixturevalue("folder")
