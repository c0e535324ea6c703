"""Which jobs may run together."""

from service.diffusion.generation import Calibrated
from service.jobs.job import JobState
from tests.scripted_engine import job, settle, submitted, value


async def test_jobs_join_the_batch_while_it_has_room(consumer, engine):
    """The third job of a batch of two waits until one leaves."""
    await engine.ready()
    first, second, third = jobs = [job(), job(), job()]
    await submitted(consumer, *jobs)
    assert engine.started == [first.id, second.id]
    await engine.finishes(second)
    assert engine.started == [first.id, second.id, third.id]


async def test_a_short_job_joins_beside_a_full_batch(consumer, engine):
    """One at a time; when it is done the next one may. What is as long as the others waits."""
    await engine.ready()
    long = [job(steps=50), job(steps=50)]
    short, other, third = job(steps=4), job(steps=4), job(steps=50)
    await submitted(consumer, *long, short, other, third)
    assert engine.started == [long[0].id, long[1].id, short.id]
    await engine.finishes(short)
    assert engine.started[3:] == [other.id]
    await engine.finishes(other)
    assert engine.started[4:] == []
    await engine.finishes(long[0])
    assert engine.started[4:] == [third.id]


async def test_room_is_counted_in_pictures(consumer, engine):
    """A job of two pictures fills a batch of two."""
    await engine.ready()
    await submitted(consumer, job(num_images=2), job())
    assert (len(engine.started), consumer.depth) == (1, 1)


async def test_the_last_attempt_is_made_alone(consumer, engine):
    """A job that kills every engine does not take those that ran beside it with it."""
    innocent, poison, other = jobs = [job(), job(), job()]
    await submitted(consumer, innocent, poison)
    for _ in range(2):
        await engine.ready()
        await engine.dies()
    await engine.ready()
    await submitted(consumer, other)
    assert (engine.started[4:], consumer.running) == ([innocent.id], 1)
    await engine.finishes(innocent)
    assert (engine.started[5:], consumer.running) == ([poison.id], 1)
    await engine.dies()
    await engine.ready()
    await engine.finishes(other)
    assert [each.state for each in jobs] == [
        JobState.SUCCEEDED,
        JobState.FAILED,
        JobState.SUCCEEDED,
    ]


async def test_no_more_jobs_run_at_a_time_than_gain_anything(consumer, engine, metrics):
    """What the engine measured is the cap from then on, below the configured one only."""
    await engine.ready()
    engine.tell(Calibrated(batch=1, size=512, seconds={1: 1.0, 2: 2.0}))
    await submitted(consumer, job(), job())
    assert (consumer.running, consumer.depth) == (1, 1)
    assert value(metrics, "sd_batch_calibrated") == 1
    assert value(metrics, "sd_batch_limit") == 2

    engine.tell(Calibrated(batch=64, size=512, seconds={64: 1.0}))
    await settle()
    assert (consumer.running, consumer.depth) == (2, 0)
    await submitted(consumer, job())
    assert (consumer.running, consumer.depth) == (2, 1)
    await engine.dies()
    shown = {sample.name for family in metrics.registry.collect() for sample in family.samples}
    assert "sd_batch_calibrated" not in shown
