"""The engine process without a model speaks as a real one: its parent believes all it says."""

import asyncio
import os
import signal

import pytest

from service.config.table import Config
from service.core.events import JobCancelled, JobFailed, JobFinished, Previewed, Stepped
from service.core.inputs import EngineInputs, InputImage
from service.core.spec import GenerationSpec
from service.engine.process.parent import ProcessEngine
from service.engine.protocol import EngineExited, EngineReady, Event, StageStarted
from service.errors import OutOfMemory
from tests.support.fake_worker import FakeWorker, drawn

WAIT_SECONDS = 60.0
REQUEST = GenerationSpec(prompt="a boat", width=64, height=64, steps=2, seed=1)
LONG = GenerationSpec(prompt="a long boat", width=64, height=64, steps=50, seed=2)


class Heard:
    """What the engine told that ends something, or shows an image in the making."""

    def __init__(self) -> None:
        self._told: asyncio.Queue[Event] = asyncio.Queue()

    def __call__(self, event: Event) -> None:
        if not isinstance(event, (StageStarted, Stepped)):
            self._told.put_nowait(event)

    async def next(self) -> Event:
        return await asyncio.wait_for(self._told.get(), WAIT_SECONDS)


@pytest.fixture
def heard() -> Heard:
    """Collect events."""
    return Heard()


@pytest.fixture
def faults(tmp_path):
    """Return the file of the engine's faults."""
    return tmp_path / "faults.json"


@pytest.fixture
async def engine(heard, faults):
    """Start one that takes no time for an image."""
    started = ProcessEngine(Config(fault_file=str(faults)), entry=FakeWorker(job_seconds=0))
    await started.start(heard)
    assert isinstance(await heard.next(), EngineReady)
    yield started
    await started.stop()


async def finished(heard: Heard) -> JobFinished:
    event = await heard.next()
    assert isinstance(event, JobFinished)
    return event


async def test_the_same_request_gives_the_same_image(engine, heard):
    """The prompt and the seed decide it; another prompt gives another image."""
    other = GenerationSpec(prompt="a ship", width=64, height=64, steps=2, seed=1)
    engine.generate("one", REQUEST, 1)
    assert (await finished(heard)).images == drawn(REQUEST)
    engine.generate("two", other, 1)
    assert (await finished(heard)).images == drawn(other) != drawn(REQUEST)


async def test_an_input_image_changes_the_image(engine, heard):
    """What is drawn depends on its pixels."""
    image = InputImage(digest="1" * 64, width=64, height=64)
    begun = GenerationSpec(prompt="a boat", width=64, height=64, image=image, seed=1)
    pixels = EngineInputs(image=bytes(64 * 64 * 3))
    engine.generate("begun", begun, 1, lambda: pixels)
    assert (await finished(heard)).images == drawn(begun, pixels) != drawn(begun)


async def test_a_job_can_be_cancelled_and_interrupted(engine, heard, faults):
    """The first ends without an image, the second with one, each before its last step."""
    faults.write_text('{"hang": true}')
    engine.generate("left", LONG, 1)
    engine.generate("short", LONG, 1)
    engine.cancel("left")
    engine.interrupt("short")
    faults.write_text("{}")
    ends = {event.job_id: event for event in [await heard.next(), await heard.next()]}
    assert isinstance(ends["left"], JobCancelled)
    assert isinstance(ends["short"], JobFinished)
    assert ends["short"].interrupted_after is not None


async def test_previews_come_when_they_are_wanted(engine, heard):
    """One after each step, until the end."""
    engine.preview("seen", wanted=True)
    engine.generate("seen", REQUEST, 1)
    told = [await heard.next() for _ in range(REQUEST.steps + 1)]
    assert [event.step for event in told if isinstance(event, Previewed)] == [1, 2]


async def test_faults_are_committed(engine, heard, faults):
    """Where memory runs out the job fails, and the next one does not."""
    faults.write_text('{"oom": {"denoise": 1}}')
    engine.generate("fails", REQUEST, 1)
    await heard.next()
    failed = await heard.next()
    assert isinstance(failed, JobFailed)
    assert failed.code == OutOfMemory.code
    engine.generate("works", REQUEST, 2)
    assert (await finished(heard)).epoch == 2


async def test_it_can_be_killed(engine, heard):
    """Its parent tells of it and starts another one."""
    os.kill(engine.pid, signal.SIGKILL)
    exited = await heard.next()
    assert isinstance(exited, EngineExited)
    assert exited.reason == "killed"
    assert isinstance(await heard.next(), EngineReady)
    engine.generate("works", REQUEST, 1)
    await finished(heard)
