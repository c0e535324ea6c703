"""The supervisor of the engine process, over children that need no torch."""

import asyncio

import pytest

from service.config import Config
from service.diffusion.generation import GenerationRequest, JobCancelled, JobFinished
from service.engine import process
from service.engine.base import EngineState
from service.engine.messages import EngineExited, EngineFailed, EngineReady, Event
from service.engine.process import ProcessEngine
from tests.unit.engine import children

WAIT_SECONDS = 30.0
CONFIG = Config()


class Heard:
    """What the engine told, one event after the other."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[Event] = asyncio.Queue()

    async def next(self):
        return await asyncio.wait_for(self.events.get(), WAIT_SECONDS)

    def __call__(self, event) -> None:
        self.events.put_nowait(event)


@pytest.fixture
def heard() -> Heard:
    """Collect events."""
    return Heard()


@pytest.fixture
async def engine(heard):
    """Start an obedient child and wait until it is ready."""
    started = ProcessEngine(CONFIG, entry=children.obedient)
    await started.start(heard)
    assert isinstance(await heard.next(), EngineReady)
    yield started
    await started.stop()


async def exit_code_after_stop(engine: ProcessEngine) -> int | None:
    child = engine._child
    assert child is not None
    await engine.stop()
    return child.exit_code


def request(prompt: str) -> GenerationRequest:
    return GenerationRequest(prompt=prompt)


async def test_a_ready_child_makes_the_engine_ready(engine):
    """The model that the child loaded is the engine's."""
    assert (engine.state, engine.model) == (EngineState.READY, children.MODEL)


async def test_commands_reach_the_child_and_events_come_back(engine, heard):
    """A job sent in comes back finished; a cancelled one comes back cancelled."""
    engine.generate("one", request("a cat"))
    assert await heard.next() == JobFinished(job_id="one", pictures=())
    engine.cancel("two")
    assert await heard.next() == JobCancelled(job_id="two")


@pytest.mark.parametrize(("prompt", "exit_code"), [("killed", -9), ("exits", 3)])
async def test_a_child_that_dies_is_reported_and_replaced(engine, heard, prompt, exit_code):
    """The exit code is told, and a new child takes over with a new process id."""
    dead = engine.pid
    engine.generate("one", request(prompt))
    assert await heard.next() == EngineExited(exit_code=exit_code, restarts=1)
    assert engine.state is EngineState.RESTARTING
    assert isinstance(await heard.next(), EngineReady)
    assert engine.pid != dead
    engine.generate("two", request("a cat"))
    assert await heard.next() == JobFinished(job_id="two", pictures=())


async def test_commands_to_a_dead_child_are_dropped(engine, heard):
    """Between a child's death and the next one, commands neither raise nor wait."""
    engine.generate("one", request("killed"))
    assert isinstance(await heard.next(), EngineExited)
    engine.generate("two", request("a cat"))
    engine.cancel("two")


async def test_a_model_that_cannot_be_loaded_is_not_tried_again(heard):
    """The failure is told once, with its reason, and nothing is restarted."""
    engine = ProcessEngine(CONFIG, entry=children.without_model)
    await engine.start(heard)
    assert await heard.next() == EngineFailed(code="model_error", detail="no such folder")
    await engine.stop()
    assert (engine.failure, engine.restarts) == ("no such folder", 0)


async def test_stopping_ends_the_child(engine):
    """After a stop the child is gone."""
    assert await exit_code_after_stop(engine) == 0


async def test_a_child_that_does_not_listen_is_killed(heard, monkeypatch):
    """A stop does not wait for ever on a child that hangs."""
    monkeypatch.setattr(process, "STOP_SECONDS", 0.1)
    engine = ProcessEngine(CONFIG, entry=children.stubborn)
    await engine.start(heard)
    await heard.next()
    assert await exit_code_after_stop(engine) == -9


async def test_a_stop_before_the_model_is_loaded_ends_the_child(heard, monkeypatch):
    """An engine can be stopped at any moment of its start."""
    monkeypatch.setattr(process, "STOP_SECONDS", 0.1)
    engine = ProcessEngine(CONFIG, entry=children.stubborn)
    await engine.start(heard)
    assert await exit_code_after_stop(engine) == -9


async def test_an_engine_that_loads_is_not_waited_for(heard):
    """A stop before the model is loaded ends the child at once: it has nothing to finish."""
    engine = ProcessEngine(CONFIG, entry=children.stubborn)
    await engine.start(heard)
    engine.state = EngineState.LOADING
    assert await exit_code_after_stop(engine) == -9


async def test_a_child_that_reads_nothing_does_not_hold_up_the_service(heard, monkeypatch):
    """Commands beyond what a pipe holds are handed over without waiting for a reader."""
    monkeypatch.setattr(process, "STOP_SECONDS", 0.1)
    engine = ProcessEngine(CONFIG, entry=children.stubborn)
    await engine.start(heard)
    await heard.next()
    for number in range(500):
        engine.generate(str(number), request("long" * 500))
        engine.cancel(str(number))
    await engine.stop()


async def test_a_child_that_hangs_with_work_is_killed_and_replaced(heard, monkeypatch):
    """An engine with a job that says nothing for the stall time is taken for dead."""
    monkeypatch.setattr(process, "STOP_SECONDS", 0.1)
    engine = ProcessEngine(Config(engine_stall_seconds=0.2), entry=children.stubborn)
    await engine.start(heard)
    await heard.next()
    engine.generate("one", request("a cat"))
    assert await heard.next() == EngineExited(exit_code=-9, restarts=1, stalled=True)
    assert isinstance(await heard.next(), EngineReady)
    await engine.stop()


async def test_an_idle_child_may_be_silent(heard):
    """Without work the stall time does not run."""
    engine = ProcessEngine(Config(engine_stall_seconds=0.01), entry=children.obedient)
    await engine.start(heard)
    await heard.next()
    engine.generate("one", request("a cat"))
    await heard.next()
    assert engine._watchdog is None
    await engine.stop()


async def test_a_reload_that_fails_is_tried_again(heard, tmp_path, monkeypatch):
    """After a crash a model that loaded before gets more than one chance to load."""
    monkeypatch.setenv("CHILD_LIVES", str(tmp_path / "lives"))
    engine = ProcessEngine(CONFIG, entry=children.short_of_memory_once)
    await engine.start(heard)
    assert isinstance(await heard.next(), EngineReady)
    engine.generate("one", request("killed"))
    assert await heard.next() == EngineExited(exit_code=-9, restarts=1)
    assert await heard.next() == EngineExited(exit_code=0, restarts=2)
    assert engine.failure == "no memory left"
    assert isinstance(await heard.next(), EngineReady)
    assert (engine.failure, engine.restarts) == ("", 2)
    await engine.stop()


def test_repeated_crashes_wait_longer_each_time():
    """The delays before restarts in a row grow, up to half a minute."""
    delays = list(process.RESTART_DELAYS)
    assert delays == sorted(delays)
    assert (delays[0], delays[-1]) == (0.0, 30.0)
