"""Engines that join and leave while the dispatcher works."""

import pytest

from service.config.table import Config
from service.core.events import JobCancelled, JobFinished
from service.engine.base import EngineState
from service.engine.protocol import EngineFailed
from service.engine.source import AbsentEngine
from service.errors import Cancelled
from service.http.native.health import status
from service.jobs.dispatch.dispatcher import Dispatcher
from service.jobs.job import JobState
from tests.support.jobs.scripted_engine import (
    ScriptedEngine,
    job,
    settle,
    stepped,
    submitted,
    value,
)
from tests.support.samples import sample


@pytest.fixture
async def empty(metrics):
    """Start a dispatcher without engines."""
    started = Dispatcher([], metrics, Config(max_concurrent_requests=1, queue_size=4))
    await started.start()
    yield started
    await started.stop()


def names(dispatcher: Dispatcher) -> list[str]:
    return [slot.name for slot in dispatcher.slots]


async def joined(dispatcher: Dispatcher) -> ScriptedEngine:
    """Let an engine join, which is ready at once."""
    dispatcher.join(engine := ScriptedEngine())
    await settle()
    await engine.ready()
    return engine


async def test_without_an_engine_jobs_wait_for_the_first(empty):
    """The service loads: it is not ready, and what it accepts starts when an engine comes."""
    found = [(names(empty), empty.admission.ready, status(empty))]
    await submitted(empty, waiting := job())
    engine = await joined(empty)
    found.append((names(empty), empty.admission.ready, status(empty)))
    assert found == [(["0"], False, "loading"), (["0"], True, "healthy")]
    assert engine.started == [waiting.id]


async def test_one_that_joins_and_cannot_load_its_model_ends_nothing(empty):
    """Another machine says nothing of this service: what waits is for the engines to come."""
    told: list[EngineFailed] = []
    empty.load_failed, empty.engines_join = told.append, True
    await submitted(empty, waiting := job())
    empty.join(broken := ScriptedEngine())
    await settle()
    broken.state = EngineState.FAILED
    broken.tell(EngineFailed(code="gpu_missing", detail="no GPU"))
    found = waiting.state
    second = await joined(empty)
    assert (told, found, second.started) == ([], JobState.QUEUED, [waiting.id])


async def test_an_engine_that_joins_takes_work_at_once(pair):
    """It is one slot more for the same queue, with the lowest number that is free."""
    a, b, c = jobs = [job() for _ in range(3)]
    await submitted(pair, *jobs)
    third = await joined(pair)
    assert (third.started, c.engine, names(pair)) == ([c.id], "2", ["0", "1", "2"])
    await third.finishes(c)
    assert c.state is JobState.SUCCEEDED
    assert [a.state, b.state] == [JobState.RUNNING] * 2


async def test_an_engine_that_leaves_ends_its_jobs_first(pair, engines, metrics):
    """Nothing new starts there; then it is stopped and its slot is gone."""
    first, second = engines
    a, b, c = jobs = [job() for _ in range(3)]
    await submitted(pair, *jobs)
    pair.leave(first)
    await first.finishes(a)
    assert (first.started, first.state, names(pair)) == ([a.id], EngineState.STOPPED, ["1"])
    assert (a.state, c.state) == (JobState.SUCCEEDED, JobState.QUEUED)
    await second.finishes(b)
    assert second.started == [b.id, c.id]
    shown = [value(metrics, "sd_engine_state", engine=name, state="ready") for name in ("0", "1")]
    assert shown == [0, 1]
    assert sample(metrics, "sd_model_info", engine="0", version="demo-1") is None


async def test_a_slot_that_is_free_again_is_given_to_the_next(pair, engines, metrics):
    """Its counters go on; what was learned of the engine before does not count for this one."""
    first, _ = engines
    await submitted(pair, a := job())
    first.tell(stepped(a, 1, seconds=9.0))
    await first.finishes(a)
    pair.leave(first)
    await settle()
    third = await joined(pair)
    assert names(pair) == ["0", "1"]
    assert pair.slots[0].engine is third
    assert pair.slots[0].estimate.pixel_step < 9.0 / 512**2
    assert value(metrics, "sd_steps_total", engine="0") == 1


async def test_the_last_engine_that_leaves_is_waited_for(pair, engines):
    """There is always a slot: jobs are accepted, and start when another engine comes."""
    for engine in engines:
        pair.leave(engine)
    await settle()
    assert [type(slot.engine) for slot in pair.slots] == [AbsentEngine]
    assert (status(pair), pair.admission.ready) == ("loading", False)
    await submitted(pair, waiting := job())
    third = await joined(pair)
    assert (third.started, names(pair)) == ([waiting.id], ["0"])


async def test_a_job_that_waits_is_not_refused_for_what_leaves(pair, engines):
    """While the only engines finish their jobs, new ones are accepted."""
    a, b = job(), job()
    await submitted(pair, a, b)
    for engine in engines:
        pair.leave(engine)
    await submitted(pair, c := job())
    assert (c.state, names(pair)) == (JobState.QUEUED, ["0", "1", "2"])
    await engines[0].finishes(a)
    await engines[1].finishes(b)
    third = await joined(pair)
    assert (third.started, names(pair)) == ([c.id], ["0"])


async def test_what_an_engine_loses_while_it_leaves_runs_elsewhere(pair, engines):
    """It is not waited for until it is back."""
    first, second = engines
    a, b = job(), job()
    await submitted(pair, a, b)
    pair.leave(second)
    await second.dies()
    assert (names(pair), second.state, b.state) == (["0"], EngineState.STOPPED, JobState.QUEUED)
    await first.finishes(a)
    assert first.started == [a.id, b.id]


async def test_a_cancelled_job_is_counted_before_its_engine_is_gone(pair, engines):
    """The engine says what it had cost."""
    first, _ = engines
    await submitted(pair, a := job())
    pair.leave(first)
    pair.cancel(a, Cancelled())
    await settle()
    assert names(pair) == ["0", "1"]
    first.tell(stepped(a, 1, seconds=2.0))
    first.tell(JobCancelled(job_id=a.id, epoch=1, steps_done=1))
    await settle()
    assert names(pair) == ["1"]


async def test_an_engine_that_left_is_not_heard(pair, engines):
    """Whatever it says: its slot is another's."""
    first, _ = engines
    await submitted(pair, a := job())
    await first.dies()
    await submitted(pair, job())
    pair.leave(first)
    await settle()
    first.tell(JobFinished(job_id=a.id, epoch=a.epoch, images=()))
    await settle()
    assert (a.state, a.engine, names(pair)) == (JobState.RUNNING, "1", ["1"])


async def test_a_dispatcher_that_stopped_starts_no_engine(metrics):
    """One that comes too late stays stopped."""
    dispatcher = Dispatcher([], metrics, Config())
    await dispatcher.start()
    await dispatcher.stop()
    dispatcher.join(late := ScriptedEngine())
    await settle()
    assert late.state is EngineState.STOPPED
