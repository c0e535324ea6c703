"""The engine without a model behaves like one with a model."""

import asyncio
from dataclasses import replace
from functools import partial

import pytest

from service.core.events import (
    JobCancelled,
    JobFailed,
    JobFinished,
    ModelFailed,
    ModelLoaded,
    ModelLoading,
    ModelsResident,
    ModelUnloaded,
    OutOfMemoryHit,
    Previewed,
    Stepped,
    UnloadReason,
)
from service.core.inputs import EngineInputs, Hires
from service.core.spec import GenerationSpec
from service.core.stage import Stage
from service.engine.base import EngineState
from service.engine.protocol import EngineExited, EngineFailed, EngineReady, Event
from service.errors import ResultDamaged
from tests.support.simulation.fake_engine import FAKE_MODEL, FakeEngine, gradient
from tests.support.simulation.fake_models import FakeModel

SHORT = GenerationSpec(prompt="a boat", width=256, height=256, steps=2, seed=1)
LONG = GenerationSpec(prompt="a boat", width=256, height=256, steps=4, seed=2, num_images=2)


@pytest.fixture
def events() -> list[Event]:
    """Return the list that a started engine writes its events to."""
    return []


@pytest.fixture
async def engine(events):
    """Start an engine that moves only when told to."""
    fake = FakeEngine(step_seconds=None)
    await fake.start(events.append)
    yield fake
    await fake.stop()


def finished(events: list[Event]) -> list[str]:
    return [event.job_id for event in events if isinstance(event, JobFinished)]


async def test_it_is_ready_at_once_unless_told_otherwise(engine, events):
    """EngineReady names the model."""
    assert engine.state is EngineState.READY
    assert events == [EngineReady(model=engine.model)]


async def test_loading_can_take_as_long_as_a_test_needs(events):
    """It ends with a model, or with the reason why there is none."""
    engine = FakeEngine(loads=False)
    await engine.start(events.append)
    assert (engine.state, engine.model, events) == (EngineState.LOADING, None, [])
    engine.fail_to_load("No UNet.")
    assert (engine.state, engine.failure) == (EngineState.FAILED, "No UNet.")
    assert events == [EngineFailed(code="model_error", detail="No UNet.")]
    await engine.stop()


async def test_jobs_join_and_leave_between_two_steps(engine, events):
    """A short job that came later ends first."""
    engine.generate("long", LONG, 1)
    await engine.step()
    engine.generate("short", SHORT, 1)
    await engine.step(2)
    assert finished(events) == ["short"]
    await engine.step()
    assert finished(events) == ["short", "long"]
    stepped = [event for event in events if isinstance(event, Stepped)]
    assert [event.batch_size for event in stepped] == [2, 3, 3, 2]
    assert [event.progress for event in stepped][1] == {"long": 2, "short": 1}
    assert stepped[0].pixels == 2 * 256 * 256


async def test_a_finished_job_has_an_image_for_each_seed(engine, events):
    """The same request gives the same images."""
    engine.generate("long", LONG, 1)
    await engine.step(4)
    (event,) = [event for event in events if isinstance(event, JobFinished)]
    assert event.images == (gradient(LONG, 2), gradient(LONG, 3))
    assert len(event.images[0].pixels) == 256 * 256 * 3
    assert event.images[0].pixels != event.images[1].pixels


async def test_an_image_depends_on_what_it_began_with(engine, events):
    """Input images, their masks and subseeds change it; what cannot be read fails its job."""
    sources = [
        EngineInputs(image=b"a"),
        EngineInputs(image=b"b"),
        EngineInputs(image=b"a", mask=b"m"),
    ]
    for number, inputs in enumerate(sources):
        engine.generate(str(number), SHORT, 1, partial(replace, inputs))
    varied = replace(SHORT, subseed=3, subseed_strength=0.5)
    engine.generate("varied", varied, 1)
    engine.generate("plain", SHORT, 1)

    def unread() -> EngineInputs:
        raise ResultDamaged("gone")

    engine.generate("unread", SHORT, 1, unread)
    await engine.step(4)
    drawn = [event.images[0].pixels for event in events if isinstance(event, JobFinished)]
    assert len(set(drawn)) == 5
    (failed,) = [event for event in events if isinstance(event, JobFailed)]
    assert (failed.job_id, failed.code) == ("unread", "result_damaged")


async def test_a_second_pass_is_drawn_in_its_size(engine, events):
    """After the steps of both."""
    twice = replace(SHORT, hires=Hires(scale=2, strength=0.5))
    engine.generate("1", twice, 1)
    await engine.step(twice.total_steps)
    (event,) = [event for event in events if isinstance(event, JobFinished)]
    assert (event.images[0].width, event.images[0].height) == twice.drawn_size


async def test_a_cancelled_job_is_gone_before_the_next_step(engine, events):
    """Unknown ids are ignored."""
    engine.generate("1", SHORT, 1)
    await engine.step()
    engine.cancel("1")
    engine.cancel("unknown")
    await engine.step(5)
    assert events[-1] == JobCancelled(job_id="1", epoch=1, steps_done=1)
    assert engine.cancelled == ["1"]


async def test_a_step_with_nothing_to_do_says_nothing(engine, events):
    """An idle engine makes no events."""
    await engine.step(3)
    assert (len(events), engine.steps) == (1, 0)


async def test_memory_that_runs_out_fails_what_is_in_the_batch(engine, events):
    """The stage is reported first, as the real engine does."""
    engine.generate("1", SHORT, 1)
    engine.run_out_of_memory(Stage.VAE_DECODE)
    hit, failed = events[1:]
    assert hit == OutOfMemoryHit(stage=Stage.VAE_DECODE, batch_size=1)
    assert isinstance(failed, JobFailed)
    assert (failed.job_id, failed.code) == ("1", "out_of_memory")


async def test_a_crash_takes_the_jobs_along_and_the_engine_comes_back(engine, events):
    """EngineExited, then EngineReady."""
    engine.generate("1", SHORT, 1)
    engine.crash(-11)
    assert (engine.state, engine.restarts, engine.batch) == (EngineState.RESTARTING, 1, {})
    await asyncio.sleep(0)
    assert engine.state is EngineState.READY
    assert events[1:] == [EngineExited(exit_code=-11, restarts=1), EngineReady(model=engine.model)]


async def test_with_a_pace_it_steps_by_itself():
    """The way it is used behind a server."""
    done = asyncio.Event()
    engine = FakeEngine(step_seconds=0.0)
    await engine.start(lambda event: done.set() if isinstance(event, JobFinished) else None)
    engine.generate("1", SHORT, 1)
    await done.wait()
    assert engine.steps == 2
    await engine.stop()


async def test_no_event_follows_the_end(engine, events):
    """A listener can go away after stop."""
    engine.generate("1", SHORT, 1)
    await engine.stop()
    await engine.step(5)
    engine.fail()
    assert len(events) == 1
    assert engine.state is EngineState.STOPPED


async def test_previews_are_sent_for_jobs_that_are_watched(engine, events):
    """After each step, as bright as the job is far; a new engine has to be told again."""
    engine.preview("short", wanted=True)
    engine.generate("short", SHORT, 1)
    engine.generate("long", LONG, 1)
    await engine.step()
    (seen,) = [event for event in events if isinstance(event, Previewed)]
    assert (seen.job_id, seen.step, seen.width, seen.height) == ("short", 1, 32, 32)
    small = gradient(replace(SHORT, width=32, height=32), SHORT.seed).pixels
    assert seen.pixels == bytes(value // 2 for value in small)
    engine.preview("short", wanted=False)
    await engine.step()
    assert len([event for event in events if isinstance(event, Previewed)]) == 1


OTHER = FakeModel(info=replace(FAKE_MODEL, model_id="other"), size=2, load_seconds=None)
BROKEN = FakeModel(info=FAKE_MODEL, error="No UNet.")


async def holding(events: list[Event], *, room: int, host_room: int = 0) -> FakeEngine:
    models = {"other": OTHER, "broken": BROKEN}
    engine = FakeEngine(step_seconds=None, models=models, room=room, host_room=host_room)
    await engine.start(events.append)
    del events[:]
    return engine


async def test_a_model_is_loaded_next_to_the_default(events):
    """The batch goes on meanwhile; asked for again, it is there at once."""
    engine = await holding(events, room=3)
    engine.generate("one", SHORT, 1)
    engine.load_model("other")
    await engine.step(2)
    assert finished(events) == ["one"]
    engine.held.finish()
    engine.load_model("other")
    first, resident, again = events[-3:]
    assert isinstance(first, ModelLoaded)
    assert resident == ModelsResident(device={"": 1, "other": 2})
    assert replace(first, seconds=0) == again
    await engine.stop()


async def test_a_model_waits_for_room_and_the_idle_one_is_parked(events):
    """One with jobs stays until they are done; the one that left comes back from the host."""
    engine = await holding(events, room=2, host_room=1)
    engine.generate("one", SHORT, 1)
    engine.load_model("other")
    assert events == []
    await engine.step(2)
    assert events[-3:] == [
        ModelUnloaded(model_id="", reason=UnloadReason.MEMORY),
        ModelsResident(host={"": 1}),
        ModelLoading(model_id="other"),
    ]
    engine.held.finish()
    engine.unload_model("other", UnloadReason.IDLE)
    engine.load_model("")
    await asyncio.sleep(0.01)
    assert [event.parked for event in events if isinstance(event, ModelLoaded)] == [False, True]
    assert events[-1] == ModelsResident(device={"": 1})
    await engine.stop()


async def test_a_model_that_cannot_be_loaded_leaves_the_others(events):
    """One that is damaged, and one that never fits."""
    engine = await holding(events, room=1)
    engine.load_model("other")
    assert events == [
        ModelFailed(model_id="other", code="out_of_memory", detail="It does not fit into memory.")
    ]
    engine.held.wanted.clear()
    engine.load_model("broken")
    engine.held.finish()
    assert isinstance(events[-1], ModelFailed)
    await engine.stop()


async def test_a_crash_forgets_all_but_the_default(events):
    """The load that ran is lost, too."""
    engine = await holding(events, room=3)
    engine.load_model("other")
    engine.crash()
    await asyncio.sleep(0)
    assert (list(engine.held.device), engine.held.wanted) == ([""], [])
    await engine.stop()
