"""Jobs that end early with their images, over an engine whose events the test decides."""

from service.core.events import JobFinished
from service.errors import Cancelled
from service.jobs.job import Job, JobState
from tests.support.jobs.scripted_engine import job, settle, stepped, submitted, value


def early(job: Job, after: int | None) -> JobFinished:
    return JobFinished(job_id=job.id, epoch=job.epoch, images=(), interrupted_after=after)


async def test_a_running_job_succeeds_with_what_it_has(dispatcher, engine, metrics):
    """It keeps its place until the engine reports the images; the engine is told once."""
    await engine.ready()
    running, other = job(), job()
    await submitted(dispatcher, running, other)
    engine.tell(stepped(running, 3, seconds=0.5))
    dispatcher.interrupt(running)
    dispatcher.interrupt(running)
    assert engine.interrupted == [running.id]
    assert (running.state, dispatcher.running) == (JobState.RUNNING, 2)
    engine.tell(early(running, 4))
    await settle()
    assert (running.state, running.steps_done, running.interrupted) == (
        JobState.SUCCEEDED,
        4,
        True,
    )
    assert value(metrics, "sd_jobs_total", api="native", outcome="succeeded", code="") == 1
    assert (other.state, other.interrupted) == (JobState.RUNNING, False)


async def test_a_waiting_job_ends_without_images(dispatcher, engine):
    """There is nothing to show; the engine hears nothing of it."""
    waiting = job()
    await submitted(dispatcher, waiting)
    dispatcher.interrupt(waiting)
    assert (waiting.state, engine.interrupted) == (JobState.CANCELLED, [])
    assert isinstance(waiting.error, Cancelled)


async def test_an_interrupt_that_comes_too_late_is_none(dispatcher, engine):
    """The engine did every step; an interrupt of a job that is over changes nothing."""
    await engine.ready()
    running = job()
    await submitted(dispatcher, running)
    dispatcher.interrupt(running)
    engine.tell(early(running, None))
    await settle()
    dispatcher.interrupt(running)
    assert (running.state, running.interrupted) == (JobState.SUCCEEDED, False)
    assert engine.interrupted == [running.id]


async def test_the_attempt_after_a_crash_is_interrupted_too(dispatcher, engine):
    """The new engine hears of the job and of the interrupt, and its end is that of the attempt."""
    await engine.ready()
    running = job()
    await submitted(dispatcher, running)
    dispatcher.interrupt(running)
    late = early(running, 1)
    await engine.dies()
    await engine.ready()
    assert engine.started == engine.interrupted == [running.id] * 2
    engine.tell(late)
    await settle()
    assert (running.state, running.epoch) == (JobState.RUNNING, 2)
    engine.tell(early(running, 1))
    await settle()
    assert (running.state, running.interrupted) == (JobState.SUCCEEDED, True)
