"""Several models on several engines."""

from dataclasses import replace

import pytest

from service.config.table import Config
from service.core.capacity import Capacity
from service.core.events import ModelLoaded, Stepped
from service.core.stage import Stage
from service.jobs.dispatch.dispatcher import Dispatcher
from tests.support.jobs.scripted_engine import MODEL, ScriptedEngine, job, settle, submitted
from tests.support.simulation.fake_models import catalog_with

B = replace(MODEL, model_id="b")


@pytest.fixture
async def both(metrics):
    """Start a dispatcher over two engines of one job each; the second one has the model b, too."""
    engines = [ScriptedEngine(), ScriptedEngine()]
    config = Config(max_concurrent_requests=1, queue_size=16)
    dispatcher = Dispatcher(engines, metrics, config, models=catalog_with("b"))
    await dispatcher.start()
    for engine in engines:
        await engine.ready()
        engine.tell(Stepped(pixels=512**2, seconds=1.0, batch_size=1))
    engines[1].tell(ModelLoaded(model_id="b", model=B, seconds=10.0))
    yield dispatcher, engines
    await dispatcher.stop()


async def test_an_idle_engine_loads_a_model_that_many_wait_for(both):
    """Its jobs would wait longer than the load takes; then both of them draw."""
    dispatcher, (first, second) = both
    await submitted(dispatcher, *(jobs := [job(model="b", steps=50) for _ in range(3)]))
    assert (first.loads, second.loads, second.started) == (["b"], [], [jobs[0].id])
    first.tell(ModelLoaded(model_id="b", model=B, seconds=10.0))
    await settle()
    assert first.started == [jobs[1].id]
    assert (first.loads, second.loads) == (["b"], [])


async def test_a_model_is_not_loaded_twice_for_a_short_wait(both):
    """The job starts sooner where the model is."""
    dispatcher, (first, second) = both
    await submitted(dispatcher, *(jobs := [job(model="b", steps=2) for _ in range(2)]))
    assert (first.loads, second.started) == ([], [jobs[0].id])
    await second.finishes(jobs[0])
    assert second.started == [jobs[0].id, jobs[1].id]


async def test_an_engine_with_work_loads_no_model_that_another_has(both):
    """It is not idle: its own jobs go on."""
    dispatcher, (first, _) = both
    await submitted(dispatcher, *(job(steps=50) for _ in range(2)))
    await submitted(dispatcher, *(job(model="b", steps=50) for _ in range(3)))
    assert first.loads == []


async def test_a_job_too_large_where_its_model_is_waits_for_another_engine(both):
    """That one loads the model; it may have the memory."""
    dispatcher, (first, second) = both
    needs = {Stage.DENOISE: (0.0, 1.0)}
    second.tell(Capacity(model_id="b", available=512**2, needs=needs))
    await submitted(dispatcher, large := job(model="b", width=768, height=768))
    assert (first.loads, second.started) == (["b"], [])
    first.tell(ModelLoaded(model_id="b", model=B, seconds=10.0))
    await settle()
    assert first.started == [large.id]


async def test_an_engine_that_leaves_loads_nothing(both):
    """The other one does, although it has work."""
    dispatcher, (first, second) = both
    await submitted(dispatcher, job(steps=50))
    dispatcher.leave(first)
    dispatcher.leave(second)
    dispatcher.join(third := ScriptedEngine())
    await settle()
    await third.ready()
    await submitted(dispatcher, job(model="b"))
    assert [engine.loads for engine in (first, second, third)] == [[], [], ["b"]]
