"""Input images on their way to the engine process."""

import threading

import pytest

from service.core.events import JobFailed, JobFinished
from service.core.inputs import EngineInputs
from service.core.spec import GenerationSpec
from service.engine.protocol import EngineExited
from service.errors import StorageUnavailable
from tests.unit.engine.process import children

WAIT_SECONDS = 30.0
REQUEST = GenerationSpec(prompt="a cat", width=64, height=64, steps=3)


async def test_input_images_reach_the_child_with_their_job(engine, heard):
    """They are read on a thread; commands keep their order meanwhile."""
    inputs = EngineInputs(image=bytes(range(256)) * 48)
    threads = []

    def read():
        threads.append(threading.current_thread())
        return inputs

    engine.generate("one", REQUEST, 1, read)
    engine.generate("two", REQUEST, 1)
    assert await heard.end() == children.returned("one", REQUEST, inputs)
    assert await heard.end() == children.finished("two", REQUEST)
    assert threads != [threading.current_thread()]


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (StorageUnavailable("The disk is gone."), "storage_unavailable", "The disk is gone."),
        (OSError("private"), "internal_error", "The images of the request cannot be read."),
        (None, "internal_error", "The images of the request cannot be read."),
    ],
)
async def test_input_images_that_cannot_be_read_fail_their_job_alone(
    engine, heard, error, code, words
):
    """Others go on, in the same process; images of a wrong size are no images."""

    def read():
        if error is not None:
            raise error
        return EngineInputs(image=b"short")

    pid = engine.pid
    engine.generate("one", REQUEST, 1, read)
    engine.generate("two", REQUEST, 1)
    ends = {end.job_id: end for end in (await heard.end(), await heard.end())}
    assert ends["one"] == JobFailed(job_id="one", epoch=1, code=code, detail=words)
    assert isinstance(ends["two"], JobFinished)
    assert (engine.pid, engine.silence) == (pid, 0.0)


async def test_input_images_of_a_child_that_died_end_nothing(engine, heard):
    """The job is asked for again, and ends once."""
    told = threading.Event()

    def read():
        told.wait(WAIT_SECONDS)
        raise OSError

    engine.generate("one", REQUEST, 1, read)
    assert engine._child is not None
    engine._child.kill()
    assert isinstance(await heard.end(), EngineExited)
    told.set()
    await heard.works_again(engine)
