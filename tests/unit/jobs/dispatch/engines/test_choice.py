"""Which of several engines is given a job."""

import pytest

from service.config.table import Config
from service.core.capacity import Capacity
from service.core.events import ModelLoaded, Stepped
from service.core.stage import Stage
from service.jobs.dispatch.circuit import CRASHES_TO_OPEN
from service.jobs.dispatch.dispatcher import Dispatcher
from service.jobs.job import Job, JobState
from tests.support.jobs.scripted_engine import MODEL, job, settle, submitted, value
from tests.support.simulation.fake_models import catalog_with
from tests.unit.jobs.dispatch.engines.conftest import SecondEngine


async def pool(
    metrics, count: int, batch: int = 1, models: str = ""
) -> tuple[Dispatcher, list[SecondEngine]]:
    """Start a dispatcher over so many engines that are ready."""
    engines = [SecondEngine() for _ in range(count)]
    config = Config(max_concurrent_requests=batch, queue_size=16)
    started = Dispatcher(engines, metrics, config, models=catalog_with(*models))
    await started.start()
    for engine in engines:
        await engine.ready()
    return started, engines


def started(engines) -> list[int]:
    return [len(engine.started) for engine in engines]


@pytest.mark.parametrize("count", [2, 3])
async def test_no_engine_is_idle_while_a_job_waits(metrics, count):
    """Whichever ends its job first is given the next one at once."""
    dispatcher, engines = await pool(metrics, count)
    jobs = [job(steps=1 + number) for number in range(3 * count)]
    await submitted(dispatcher, *jobs)
    while running := [each for each in jobs if each.state is JobState.RUNNING]:
        assert len(running) == min(count, sum(not each.final for each in jobs))
        last = running[-1]
        await engines[int(last.engine)].finishes(last)
    assert {each.state for each in jobs} == {JobState.SUCCEEDED}
    assert value(metrics, "sd_queue_depth") == 0
    await dispatcher.stop()


@pytest.mark.parametrize("count", [2, 3])
async def test_an_idle_engine_is_better_than_a_place_in_a_batch(metrics, count):
    """However little is left of the batch."""
    dispatcher, engines = await pool(metrics, count, batch=4)
    await submitted(dispatcher, *(job(steps=1) for _ in range(count)))
    assert started(engines) == [1] * count
    await dispatcher.stop()


async def test_the_faster_of_two_idle_engines_is_given_the_job(metrics):
    """By what was measured; a small difference is none."""
    dispatcher, (first, second, third) = await pool(metrics, 3)
    for engine, seconds in ((first, 4.0), (second, 1.1), (third, 1.0)):
        engine.tell(Stepped(pixels=512**2, seconds=seconds, batch_size=1))
    await submitted(dispatcher, *(job() for _ in range(3)))
    found = [[each.engine for each in slot.jobs.values()] for slot in dispatcher.slots]
    assert found == [["0"], ["1"], ["2"]]
    order = sorted((j for slot in dispatcher.slots for j in slot.jobs.values()), key=begun)
    assert [each.engine for each in order] == ["1", "2", "0"]
    await dispatcher.stop()


def begun(job: Job) -> float:
    assert job.started is not None
    return job.started


async def test_a_job_joins_images_of_its_size(metrics):
    """They share their steps with it, and others would take turns with it."""
    dispatcher, (first, second) = await pool(metrics, 2, batch=2)
    large, small = job(width=768, height=768, steps=5), job(width=512, height=512, steps=10)
    await submitted(dispatcher, large, small)
    assert started((first, second)) == [1, 1]
    await submitted(dispatcher, like := job(width=512, height=512, steps=20))
    assert like.engine == small.engine
    await dispatcher.stop()


async def test_a_batch_that_fits_is_not_waited_for_longer_than_the_job_takes(metrics):
    """The engine with less work left gets it."""
    dispatcher, (first, second) = await pool(metrics, 2, batch=2)
    large, small = job(width=768, height=768, steps=1), job(width=512, height=512, steps=50)
    await submitted(dispatcher, large, small)
    await submitted(dispatcher, like := job(width=512, height=512, steps=2))
    assert like.engine == large.engine
    assert started((first, second)) == [2, 1]
    await dispatcher.stop()


async def test_a_job_is_drawn_where_its_model_is(metrics):
    """By the engine that has it in memory; nothing has to be loaded for it."""
    dispatcher, engines = await pool(metrics, 3, models="b")
    engines[1].tell(ModelLoaded(model_id="b", model=MODEL, seconds=1.0))
    await submitted(dispatcher, other := job(model="b"))
    assert (started(engines), other.engine) == ([0, 1, 0], "1")
    assert [engine.loads for engine in engines] == [[], [], []]
    await dispatcher.stop()


@pytest.mark.parametrize("count", [2, 3])
async def test_a_last_chance_keeps_one_engine_free_and_the_others_busy(metrics, count):
    """With full batches everywhere: the one with the least work left takes nothing more."""
    dispatcher, engines = await pool(metrics, count, batch=2)
    await submitted(dispatcher, *(job(steps=10 + number) for number in range(2 * count)))
    poison = job(steps=1)
    poison.attempts = 2
    dispatcher.restore(poison)
    await submitted(dispatcher, *(job(steps=20) for _ in range(2 * count)))
    full = [[*slot.jobs.values()] for slot in dispatcher.slots]
    for engine, jobs in zip(engines, full, strict=True):
        await engine.finishes(jobs[0])
    assert [len(slot.jobs) for slot in dispatcher.slots] == [1] + [2] * (count - 1)
    assert poison.state is JobState.QUEUED
    await engines[0].finishes(full[0][1])
    assert [*dispatcher.slots[0].jobs] == [poison.id]
    assert [len(slot.jobs) for slot in dispatcher.slots] == [1] + [2] * (count - 1)
    await engines[0].finishes(poison)
    assert [len(slot.jobs) for slot in dispatcher.slots] == [2] * count
    await dispatcher.stop()


@pytest.mark.parametrize("count", [2, 3])
async def test_memory_refuses_only_what_fits_no_engine(metrics, count):
    """The largest decides, also when it is busy; its job waits for it."""
    dispatcher, engines = await pool(metrics, count)
    needs = {Stage.DENOISE: (0.0, 1.0)}
    for engine in engines[:-1]:
        engine.tell(Capacity(available=512**2, needs=needs))
    engines[-1].tell(Capacity(available=768**2, needs=needs))
    large = [job(width=768, height=768) for _ in range(2)]
    await submitted(dispatcher, *large)
    assert started(engines) == [0] * (count - 1) + [1]
    await submitted(dispatcher, *(job() for _ in range(count - 1)))
    assert started(engines) == [1] * count
    await engines[-1].finishes(large[0])
    assert large[1].engine == str(count - 1)
    await dispatcher.stop()


@pytest.mark.parametrize("count", [2, 3])
async def test_an_engine_that_keeps_dying_is_taken_out_and_comes_back(metrics, count):
    """The others work on; one job at a time shows whether it holds."""
    dispatcher, engines = await pool(metrics, count, batch=2)
    bad = engines[-1]
    for _ in range(CRASHES_TO_OPEN):
        await bad.dies(restart_seconds=30)
    jobs = [job() for _ in range(2 * count + 2)]
    await submitted(dispatcher, *jobs)
    assert started(engines) == [2] * (count - 1) + [0]
    assert dispatcher.admission.ready
    await bad.ready()
    assert started(engines)[-1] == 1
    trial = next(each for each in jobs if each.engine == str(count - 1) and each.started)
    await bad.finishes(trial)
    assert started(engines)[-1] == 3
    await dispatcher.stop()


async def test_an_engine_that_falls_silent_is_given_nothing(metrics):
    """Its jobs may have to run again; the next ones start where they are heard."""
    dispatcher, (first, second) = await pool(metrics, 2, batch=2)
    first.quiet = 3.0
    await submitted(dispatcher, *(job(steps=5) for _ in range(3)))
    assert started((first, second)) == [0, 2]
    first.quiet = 0.0
    first.tell(Stepped(pixels=512**2, seconds=1.0, batch_size=1))
    await settle()
    assert started((first, second)) == [1, 2]
    await dispatcher.stop()


@pytest.mark.parametrize("count", [2, 3])
async def test_positions_count_all_engines(metrics, count):
    """As many jobs as there are engines start in each round."""
    dispatcher, engines = await pool(metrics, count)
    for engine in engines:
        engine.tell(Stepped(pixels=512**2, seconds=1.0, batch_size=1))
    await submitted(dispatcher, *(job(steps=10) for _ in range(count)))
    waiting = [job(steps=10) for _ in range(2 * count)]
    await submitted(dispatcher, *waiting)
    found = [dispatcher.position(each) for each in waiting]
    assert [each.number for each in found if each] == [*range(1, 2 * count + 1)]
    seconds = [each.start_seconds for each in found if each]
    assert seconds == pytest.approx([13.0] * count + [26.0] * count)
    await dispatcher.stop()
