"""Which jobs may run together."""

import pytest

from service.config.table import Config
from service.core.events import BatchCalibrated
from service.core.spec import GenerationSpec
from service.jobs.dispatch.slot import EngineSlot
from service.jobs.job import Job, JobState
from service.telemetry.metrics import Metrics
from tests.support.jobs.scripted_engine import job, settle, submitted, value


async def test_jobs_join_the_batch_while_it_has_room(dispatcher, engine):
    """The third job of a batch of two waits until one leaves."""
    await engine.ready()
    first, second, third = jobs = [job(), job(), job()]
    await submitted(dispatcher, *jobs)
    assert engine.started == [first.id, second.id]
    await engine.finishes(second)
    assert engine.started == [first.id, second.id, third.id]


async def test_a_short_job_joins_beside_a_full_batch(dispatcher, engine):
    """One at a time; when it is done the next one may. What is as long as the others waits."""
    await engine.ready()
    long = [job(steps=50), job(steps=50)]
    short, other, third = job(steps=4), job(steps=4), job(steps=50)
    await submitted(dispatcher, *long, short, other, third)
    assert engine.started == [long[0].id, long[1].id, short.id]
    await engine.finishes(short)
    assert engine.started[3:] == [other.id]
    await engine.finishes(other)
    assert engine.started[4:] == []
    await engine.finishes(long[0])
    assert engine.started[4:] == [third.id]


async def test_room_is_counted_in_images(dispatcher, engine):
    """A job of two images fills a batch of two."""
    await engine.ready()
    await submitted(dispatcher, job(num_images=2), job())
    assert (len(engine.started), dispatcher.depth) == (1, 1)


async def test_the_last_attempt_is_made_alone(dispatcher, engine):
    """A job that kills every engine does not take those that ran beside it with it."""
    innocent, poison, other = jobs = [job(), job(), job()]
    await submitted(dispatcher, innocent, poison)
    for _ in range(2):
        await engine.ready()
        await engine.dies()
    await engine.ready()
    await submitted(dispatcher, other)
    assert (engine.started[4:], dispatcher.running) == ([innocent.id], 1)
    await engine.finishes(innocent)
    assert (engine.started[5:], dispatcher.running) == ([poison.id], 1)
    await engine.dies()
    await engine.ready()
    await engine.finishes(other)
    assert [each.state for each in jobs] == [
        JobState.SUCCEEDED,
        JobState.FAILED,
        JobState.SUCCEEDED,
    ]


async def test_no_more_jobs_run_at_a_time_than_gain_anything(dispatcher, engine, metrics):
    """What the engine measured is the cap from then on, below the configured one only."""
    await engine.ready()
    engine.tell(BatchCalibrated(batch=1, size=512, seconds={1: 1.0, 2: 2.0}))
    await submitted(dispatcher, job(), job())
    assert (dispatcher.running, dispatcher.depth) == (1, 1)
    assert value(metrics, "sd_batch_calibrated") == 1
    assert value(metrics, "sd_batch_limit") == 2

    engine.tell(BatchCalibrated(batch=64, size=512, seconds={64: 1.0}))
    await settle()
    assert (dispatcher.running, dispatcher.depth) == (2, 0)
    await submitted(dispatcher, job())
    assert (dispatcher.running, dispatcher.depth) == (2, 1)
    await engine.dies()
    shown = {sample.name for family in metrics.registry.collect() for sample in family.samples}
    assert "sd_batch_calibrated" not in shown


def begun(attempts: int) -> Job:
    return Job(request=GenerationSpec(prompt="a cat"), attempts=attempts)


@pytest.mark.parametrize(
    ("most", "expected"), [(1, [0, 1, 1, 1]), (2, [0, 1, 1, 1]), (3, [0, 0, 1, 1])]
)
async def test_the_last_chance_is_the_attempt_before_the_most(engine, most, expected):
    """A job that lost no engine has more than one chance, whatever MAX_ATTEMPTS is."""
    slot = EngineSlot(engine, Metrics().engine("0"), Config(max_attempts=most))
    assert [slot.last_chance(begun(attempts)) for attempts in range(4)] == expected


@pytest.mark.parametrize(
    ("most", "joined"), [(1, [1, 0, 0]), (2, [1, 0, 0]), (3, [1, 1, 0]), (4, [1, 1, 1])]
)
async def test_nothing_joins_a_job_on_its_last_attempt(engine, most, joined):
    """``joined`` is for jobs on their first, second and third attempt."""
    await engine.ready()
    found = []
    for attempts in (1, 2, 3):
        slot = EngineSlot(engine, Metrics().engine("0"), Config(max_attempts=most))
        running = begun(attempts)
        slot.jobs[running.id] = running
        found.append(slot.has_room)
    assert found == joined


async def test_a_dead_engine_has_no_jobs(engine):
    """Neither those in work nor those that were leaving it."""
    slot = EngineSlot(engine, Metrics().engine("0"), Config())
    running, leaving = begun(1), begun(1)
    slot.jobs[running.id], slot.leaving[leaving.id] = running, leaving
    assert slot.lose() == ([running], [leaving])
    assert (slot.find(running.id), slot.find(leaving.id)) == (None, None)
    assert slot.lose() == ([], [])


async def test_room_is_counted_in_places(dispatcher, engine):
    """A job of one image with two sub-prompts fills a batch of two, as its rows do."""
    await engine.ready()
    composed = Job(request=GenerationSpec(prompt="a cat AND a dog", prompt_syntax="a1111"))
    await submitted(dispatcher, composed, job(steps=50))
    assert (engine.started, dispatcher.depth) == ([composed.id], 1)
