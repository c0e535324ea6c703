"""The supervisor of the engine process, over children that need no torch."""

import asyncio
import threading
from dataclasses import replace

import pytest

from service.config.table import Config
from service.core.events import JobCancelled, JobFinished
from service.core.spec import GenerationSpec
from service.core.stage import Stage
from service.engine import heartbeat
from service.engine.base import EngineState
from service.engine.process import child, parent
from service.engine.process.parent import ProcessEngine
from service.engine.protocol import EngineExited, EngineFailed, EngineReady, StageStarted
from service.system import executors
from service.system.executors import ENGINE
from tests.support.wait import until
from tests.unit.engine.process import children

CONFIG = Config()
WAIT_SECONDS = 60.0
"""More than threads stay that an earlier test left."""


@pytest.fixture
async def impatient(engine, heard, monkeypatch):
    """Return an engine whose usual step is known, and which may not be silent for long."""
    for floor in ("STEP_FLOOR_SECONDS", "STAGE_FLOOR_SECONDS"):
        monkeypatch.setattr(heartbeat, floor, 0.3)
    engine.generate("usual", request("a cat"), 1)
    assert isinstance(await heard.end(), JobFinished)
    return engine


async def exit_code_after_stop(engine: ProcessEngine) -> int | None:
    running = engine._child
    assert running is not None
    await engine.stop()
    return running.exit_code


def request(prompt: str) -> GenerationSpec:
    return GenerationSpec(prompt=prompt, width=64, height=64, steps=3)


async def test_a_ready_child_makes_the_engine_ready(engine):
    """The model that the child loaded is the engine's."""
    assert (engine.state, engine.model) == (EngineState.READY, children.MODEL)


async def test_commands_reach_the_child_and_events_come_back(engine, heard):
    """A job sent in comes back finished; a cancelled one comes back cancelled."""
    engine.generate("one", request("a cat"), 1)
    assert await heard.end() == children.finished("one", request("a cat"))
    engine.generate("two", request("stays"), 1)
    engine.cancel("two")
    assert await heard.end() == JobCancelled(job_id="two", epoch=1)


async def test_an_interrupted_job_comes_back_with_its_images(engine, heard):
    """They say after how many steps; an id that nobody has changes nothing."""
    engine.generate("one", request("stays"), 1)
    engine.interrupt("nobody")
    engine.interrupt("one")
    early = replace(children.finished("one", request("stays")), interrupted_after=1)
    assert await heard.end() == early
    assert engine.restarts == 0


async def test_a_late_end_of_an_earlier_attempt_ends_nothing(engine, heard):
    """The child goes on, and the end of the attempt in work is the one that is heard."""
    pid = engine.pid
    engine.generate("one", request("late"), 2)
    assert (await heard.end()).epoch == 2
    assert (engine.pid, engine.restarts) == (pid, 0)


@pytest.mark.parametrize(
    ("prompt", "exit_code", "reason"),
    [
        ("killed", -9, "killed"),
        ("segfault", -11, "crashed"),
        ("exits", 3, "exited"),
        ("raises", 1, "exited"),
    ],
)
async def test_a_child_that_dies_is_reported_and_replaced(engine, heard, prompt, exit_code, reason):
    """The exit code is told, and a new child takes over with a new process id."""
    dead = engine.pid
    engine.generate("one", request(prompt), 1)
    exited = await heard.end()
    assert (exited.exit_code, exited.restarts, exited.reason) == (exit_code, 1, reason)
    assert engine.state is EngineState.RESTARTING
    await heard.works_again(engine)
    assert engine.pid != dead


@pytest.mark.parametrize("prompt", children.GARBAGE)
async def test_a_child_that_says_what_cannot_be_true_is_killed_and_replaced(engine, heard, prompt):
    """It is heard no more, and the next one makes images."""
    engine.generate("one", request(prompt), 1)
    told = [await heard.next()]
    while not isinstance(told[-1], EngineExited):
        told.append(await heard.next())
    assert told[-1].reason == "garbage"
    assert all(
        event == children.finished("one", request(prompt))
        for event in told[:-1]
        if isinstance(event, JobFinished)
    )
    await heard.works_again(engine)


async def test_a_message_without_its_end_is_silence(impatient, heard):
    """The rest of it never comes, and the watchdog does."""
    impatient.generate("one", request("half a message"), 1)
    assert (await heard.end()).reason == "stalled"


async def test_commands_to_a_dead_child_are_dropped(engine, heard):
    """Between a child's death and the next one, commands neither raise nor wait."""
    engine.generate("one", request("killed"), 1)
    assert isinstance(await heard.next(), EngineExited)
    engine.generate("two", request("a cat"), 1)
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
    monkeypatch.setattr(parent, "STOP_SECONDS", 0.1)
    engine = ProcessEngine(CONFIG, entry=children.stubborn)
    await engine.start(heard)
    await heard.next()
    assert await exit_code_after_stop(engine) == -9


async def test_an_engine_outlives_the_threads_that_calls_borrow(heard, monkeypatch):
    """The kernel ends it with the thread that started it, which therefore stays."""
    monkeypatch.setattr(executors, "LINGER_SECONDS", 0.01)
    engine = ProcessEngine(CONFIG, entry=children.obedient)
    await engine.start(heard)
    assert isinstance(await heard.next(), EngineReady)

    async def gone() -> bool:
        return all(thread.name != "sd-engine" for thread in threading.enumerate())

    await until(gone, WAIT_SECONDS, "the executor's threads end")
    engine.generate("works", request("a cat"), 1)
    assert await heard.end() == children.finished("works", request("a cat"))
    await engine.stop()


async def test_a_stop_before_the_model_is_loaded_ends_the_child(heard, monkeypatch):
    """An engine can be stopped at any moment of its start."""
    monkeypatch.setattr(parent, "STOP_SECONDS", 0.1)
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
    monkeypatch.setattr(parent, "STOP_SECONDS", 0.1)
    engine = ProcessEngine(CONFIG, entry=children.stubborn)
    await engine.start(heard)
    await heard.next()
    for number in range(500):
        engine.generate(str(number), request("long" * 500), 1)
        engine.cancel(str(number))
    await engine.stop()


async def test_a_child_that_hangs_with_work_is_killed_and_replaced(impatient, heard):
    """An engine that is silent for much longer than a step takes is taken for dead."""
    impatient.generate("one", request("hangs"), 1)
    assert await heard.end() == EngineExited(exit_code=-9, restarts=1, cause="stalled")
    await heard.works_again(impatient)


async def test_work_that_comes_meanwhile_is_no_sign_of_life(impatient, heard):
    """Clients that hang up and others that come do not keep a hanging engine alive."""
    impatient.generate("one", request("hangs"), 1)

    async def newcomers() -> None:
        while True:
            impatient.generate("two", request("a cat"), 1)
            impatient.cancel("two")
            await asyncio.sleep(0.01)

    coming = asyncio.create_task(newcomers())
    assert (await heard.end()).reason == "stalled"
    coming.cancel()


async def test_an_engine_that_falls_silent_is_late_before_it_is_killed(monkeypatch, engine, heard):
    """For half of the time, in which it is not ready for new work."""
    monkeypatch.setattr(parent, "STOP_SECONDS", 0.1)
    engine.generate("one", request("hangs"), 1)
    assert isinstance(await heard.next(), StageStarted)
    before = engine.late
    engine._watchdog._heard -= 400
    assert (before, engine.late) == (False, True)
    assert 400 <= engine.silence < 500
    engine.cancel("one")


async def test_what_the_warm_up_measured_is_what_an_engine_is_held_to(heard):
    """It is for the watchdog: nobody else hears of it."""
    engine = ProcessEngine(CONFIG, entry=children.measured)
    await engine.start(heard)
    assert isinstance(await heard.next(), EngineReady)
    engine.generate("one", request("a cat"), 1)
    assert await heard.end() == children.finished("one", request("a cat"))
    large = GenerationSpec(prompt="a cat", width=512, height=512)
    assert engine._heartbeat.limit(Stage.DENOISE, [large]) == 300
    await engine.stop()


async def test_an_idle_child_may_be_silent(heard):
    """Without work the stall time does not run."""
    engine = ProcessEngine(CONFIG, entry=children.obedient)
    await engine.start(heard)
    assert isinstance(await heard.next(), EngineReady)
    assert (engine.silence, engine.late) == (0.0, False)
    engine.generate("one", request("a cat"), 1)
    await heard.end()
    assert (engine.silence, engine.late) == (0.0, False)
    await engine.stop()


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (children.crashes_while_loading_once, "crashed"),
        (children.hangs_while_loading_once, "stalled"),
        (children.babbling_once, "garbage"),
    ],
)
async def test_a_child_that_dies_while_it_loads_is_replaced(
    heard, tmp_path, monkeypatch, entry, reason
):
    """Whichever way: loading has its limit of time, too."""
    monkeypatch.setenv("CHILD_LIVES", str(tmp_path / "lives"))
    # Also the start of a process must fit into it.
    engine = ProcessEngine(Config(engine_stall_seconds=5.0), entry=entry)
    await engine.start(heard)
    assert (await heard.end()).reason == reason
    assert isinstance(await heard.end(), EngineReady)
    await engine.stop()


async def test_a_child_that_never_lives_is_started_ever_more_seldom(heard, monkeypatch):
    """Each restart is announced with its delay."""
    monkeypatch.setattr(parent, "RESTART_DELAYS", (0.0, 0.01, 0.02))
    engine = ProcessEngine(CONFIG, entry=children.always_dying)
    await engine.start(heard)
    exits = [await heard.next() for _ in range(4)]
    assert [each.restart_seconds for each in exits] == [0.0, 0.01, 0.02, 0.02]
    assert [each.restarts for each in exits] == [1, 2, 3, 4]
    await engine.stop()


@pytest.mark.parametrize("missing", ["pipe", "process", "thread"])
async def test_what_a_child_needs_and_cannot_have_is_waited_for(heard, monkeypatch, missing):
    """A machine without a file, a process or a thread to spare gets another try."""
    broken = {
        "pipe": (child.SPAWN, "Pipe", OSError(24, "Too many open files")),
        "process": (child.SPAWN.Process, "start", OSError(12, "Cannot allocate memory")),
        "thread": (threading.Thread, "start", RuntimeError("can't start new thread")),
    }
    owner, name, error = broken[missing]
    if missing == "thread":
        await ENGINE.run(int)  # The executor's own thread is there.
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, lambda *_, **__: (_ for _ in ()).throw(error))
        engine = ProcessEngine(CONFIG, entry=children.obedient)
        await engine.start(heard)
        assert (await heard.next()).reason == "not_started"
    await heard.works_again(engine)
    await engine.stop()


async def test_a_reload_that_fails_is_tried_again(heard, tmp_path, monkeypatch):
    """After a crash a model that loaded before gets more than one chance to load."""
    monkeypatch.setenv("CHILD_LIVES", str(tmp_path / "lives"))
    engine = ProcessEngine(CONFIG, entry=children.short_of_memory_once)
    await engine.start(heard)
    assert isinstance(await heard.next(), EngineReady)
    engine.generate("one", request("killed"), 1)
    assert await heard.next() == EngineExited(exit_code=-9, restarts=1)
    assert await heard.next() == EngineExited(exit_code=0, restarts=2, cause="load_failed")
    assert engine.failure == "no memory left"
    assert isinstance(await heard.next(), EngineReady)
    assert (engine.failure, engine.restarts) == ("", 2)
    await engine.stop()


async def test_a_first_load_without_memory_is_tried_again(heard, tmp_path, monkeypatch):
    """Others may hold it for a moment: the engine is started until the model fits."""
    monkeypatch.setenv("CHILD_LIVES", str(tmp_path / "lives"))
    monkeypatch.setattr(parent, "RESTART_DELAYS", (0.0, 0.01))
    engine = ProcessEngine(CONFIG, entry=children.short_of_memory_at_first)
    await engine.start(heard)
    first, second = await heard.next(), await heard.next()
    assert first == EngineExited(exit_code=0, restarts=1, cause="load_failed")
    assert (second.restarts, second.restart_seconds) == (2, 0.01)
    assert (engine.state, engine.failure) == (EngineState.RESTARTING, "no memory left")
    await heard.works_again(engine)
    assert engine.failure == ""
    await engine.stop()


def test_repeated_crashes_wait_longer_each_time():
    """The delays before restarts in a row grow, up to half a minute."""
    delays = list(parent.RESTART_DELAYS)
    assert delays == sorted(delays)
    assert (delays[0], delays[-1]) == (0.0, 30.0)
