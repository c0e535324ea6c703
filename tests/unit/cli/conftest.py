"""A stand-in for the model of ``sd-api generate``."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from service.core.events import JobFailed, JobFinished, Stepped
from service.core.image import RawImage
from service.engine.process import worker
from tests.support.simulation.fake_engine import FAKE_MODEL


class OneJob:
    """A step loop whose job takes one step and ends as it is told to."""

    def __init__(self, failure: str = "") -> None:
        self.failure = failure
        self.busy = False

    def add(self, job_id, request, inputs=None) -> None:
        self.busy, self.job_id, self.request, self.inputs = True, job_id, request, inputs

    def step(self):
        self.busy = False
        if self.failure:
            return [JobFailed(job_id=self.job_id, epoch=1, code=self.failure, detail="The reason.")]
        images = tuple(
            RawImage(pixels=bytes(3), width=1, height=1, seed=number)
            for number in range(self.request.num_images)
        )
        return [
            Stepped(progress={self.job_id: 1}, batch_size=1, pixels=1, seconds=0.1),
            JobFinished(job_id=self.job_id, epoch=1, images=images),
        ]


@pytest.fixture
def here(tmp_path: Path, monkeypatch) -> Path:
    """Work in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def loaded(monkeypatch) -> OneJob:
    """Stand in for the model."""
    loop = OneJob()
    ready = SimpleNamespace(model=FAKE_MODEL)
    monkeypatch.setattr(worker, "load", lambda _config: (loop, ready))
    return loop


@pytest.fixture
def unloadable(monkeypatch) -> None:
    """Fail the test when a model is loaded."""
    monkeypatch.setattr(worker, "load", lambda _config: pytest.fail("a model was loaded"))
