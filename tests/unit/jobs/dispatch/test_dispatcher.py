"""The task that feeds an engine, over an engine whose events the test decides."""

import asyncio
from typing import Any

import pytest
from structlog.testing import capture_logs

from service.config.table import Config
from service.core.events import JobCancelled, JobFailed, JobFinished, OutOfMemoryHit, Stepped
from service.core.stage import OomRung, Stage, StageTimes
from service.engine.base import EngineState
from service.engine.protocol import EngineFailed
from service.errors import (
    Cancelled,
    Disconnected,
    EngineCrashed,
    OutOfMemory,
    RequestTimedOut,
    ServiceError,
    ShuttingDown,
)
from service.jobs.dispatch.dispatcher import Dispatcher
from service.jobs.job import Job, JobState
from service.jobs.observer import Observer
from tests.support.jobs.scripted_engine import (
    ScriptedEngine,
    job,
    settle,
    stepped,
    submitted,
    value,
)


async def test_jobs_wait_until_the_engine_is_ready(dispatcher, engine):
    """What is accepted while the model loads starts as soon as it is loaded."""
    waiting = job()
    await submitted(dispatcher, waiting)
    assert (engine.started, dispatcher.depth) == ([], 1)
    await engine.ready()
    assert (engine.started, dispatcher.depth, waiting.state) == ([waiting.id], 0, JobState.RUNNING)


async def test_a_waiting_job_is_told_where_it_stands(dispatcher, engine):
    """The number counts from 1; a running job has none."""
    await engine.ready()
    running, _, waiting = jobs = [job(), job(), job()]
    await submitted(dispatcher, *jobs)
    assert dispatcher.position(running) is None
    position = dispatcher.position(waiting)
    assert position is not None
    assert position.number == 1
    assert position.start_seconds > 0


async def test_a_finished_job_hands_over_its_result_and_model(dispatcher, engine):
    """The waiter gets the images, and the job names the model they came from."""
    await engine.ready()
    made = job()
    await submitted(dispatcher, made)
    await engine.finishes(made)
    assert await made.wait() == JobFinished(job_id=made.id, epoch=1, images=())
    assert (made.state, made.model_version) == (JobState.SUCCEEDED, "demo-1")


async def test_a_failed_job_raises_its_error(dispatcher, engine, metrics):
    """The engine's code becomes the error class of that name, for that job alone."""
    await engine.ready()
    failed, other = job(), job()
    await submitted(dispatcher, failed, other)
    engine.tell(OutOfMemoryHit(stage=Stage.VAE_DECODE, batch_size=1))
    engine.tell(JobFailed(job_id=failed.id, epoch=1, code="out_of_memory", detail="ask for less"))
    with pytest.raises(OutOfMemory, match="ask for less"):
        await failed.wait()
    assert other.state is JobState.RUNNING
    assert value(metrics, "sd_oom_total", stage=Stage.VAE_DECODE, rung=OomRung.FAIL) == 1
    assert value(metrics, "sd_jobs_total", outcome="failed", code="out_of_memory") == 1


async def test_an_engine_that_takes_no_job_fails_that_job_alone(dispatcher, engine, monkeypatch):
    """An error that nobody thought of ends one job; those behind it are served."""
    await engine.ready()
    taken = engine.generate

    def refuse(*_: object):
        monkeypatch.setattr(engine, "generate", taken)
        raise RuntimeError("unforeseen")

    monkeypatch.setattr(engine, "generate", refuse)
    first, second = job(), job()
    await submitted(dispatcher, first, second)
    assert (first.state, engine.started) == (JobState.FAILED, [second.id])
    with pytest.raises(ServiceError, match="log"):
        await first.wait()


async def test_feeding_goes_on_after_an_error(dispatcher, engine, monkeypatch):
    """Whatever it is, those who wait do not wait for ever."""
    monkeypatch.setattr("service.jobs.dispatch.feed.FEED_AGAIN_SECONDS", 0.0)
    start = dispatcher._start_waiting

    def broken():
        monkeypatch.setattr(dispatcher, "_start_waiting", start)
        raise RuntimeError("unforeseen")

    monkeypatch.setattr(dispatcher, "_start_waiting", broken)
    await engine.ready()
    waiting = job()
    await submitted(dispatcher, waiting)
    assert engine.started == [waiting.id]


async def test_a_waiting_job_that_is_cancelled_frees_its_place(dispatcher, engine, metrics):
    """Nobody runs a job whose client hung up, and its place is free at once."""
    gone, other = job(), job()
    await submitted(dispatcher, gone, other)
    dispatcher.cancel(gone, Disconnected())
    assert (dispatcher.depth, value(metrics, "sd_queue_depth")) == (1, 1)
    await engine.ready()
    assert (engine.started, engine.cancelled) == ([other.id], [])
    assert value(metrics, "sd_jobs_total", outcome="disconnected", code="") == 1


async def test_a_running_job_that_is_cancelled_leaves_the_batch(dispatcher, engine, metrics):
    """The engine is told, and the next job takes the place."""
    await engine.ready()
    late, other, third = job(), job(), job()
    await submitted(dispatcher, late, other, third)
    dispatcher.cancel(late, RequestTimedOut())
    await settle()
    assert (engine.cancelled, engine.started[-1]) == ([late.id], third.id)
    assert value(metrics, "sd_jobs_total", outcome="timed_out", code="") == 1


async def test_cancelling_what_has_ended_changes_nothing(dispatcher, engine):
    """A cancel that comes too late does not touch the result."""
    await engine.ready()
    made = job()
    await submitted(dispatcher, made)
    await engine.finishes(made)
    dispatcher.cancel(made, Cancelled())
    assert (made.state, engine.cancelled) == (JobState.SUCCEEDED, [])


async def test_a_result_that_comes_after_the_cancel_is_dropped(dispatcher, engine):
    """An image finished in the very step of its cancel goes nowhere, without an error."""
    await engine.ready()
    late = job()
    await submitted(dispatcher, late)
    dispatcher.cancel(late, Cancelled())
    await engine.finishes(late)
    assert late.state is JobState.CANCELLED


async def test_jobs_of_a_dead_engine_run_again_first_and_in_order(dispatcher, engine, metrics):
    """After a crash what was in work goes before what waits, even above the queue's bound."""
    await engine.ready()
    first, second, *_ = jobs = [job() for _ in range(4)]
    await submitted(dispatcher, *jobs)
    await engine.dies()
    assert (dispatcher.depth, dispatcher.running, first.state) == (4, 0, JobState.QUEUED)
    await engine.ready()
    assert engine.started == [first.id, second.id, first.id, second.id]
    assert value(metrics, "sd_engine_restarts_total", reason="killed") == 1


@pytest.mark.parametrize(
    "late",
    [
        JobFinished(job_id="one", epoch=1, images=(), times=StageTimes(denoise=2.0)),
        JobFailed(job_id="one", epoch=1, code="generation_failed", detail="It went wrong."),
        JobCancelled(job_id="one", epoch=1),
    ],
    ids=lambda late: type(late).__name__,
)
async def test_a_late_result_of_an_earlier_attempt_is_not_delivered(
    dispatcher, engine, metrics, late
):
    """The job goes on in its second attempt, which alone ends it."""
    again = Job(id="one", request=job().request)
    await engine.ready()
    await submitted(dispatcher, again)
    step = stepped(again, 19, seconds=1.0)
    await engine.dies()
    await engine.ready()
    with capture_logs() as logs:
        engine.tell(step)
        engine.tell(late)
    dropped = {"epoch": 1, "job_id": "one", "engine": "0"}
    assert [line for line in logs if line["event"] == "late_event_dropped"] == [
        {"event": "late_event_dropped", "log_level": "warning", **dropped}
    ] * 2
    assert (again.state, again.epoch, again.steps_done) == (JobState.RUNNING, 2, 0)
    assert (dispatcher.running, value(metrics, "sd_gpu_seconds_total", use="useful")) == (1, 0)
    await engine.finishes(again)
    assert (again.state, (await again.wait()).epoch) == (JobState.SUCCEEDED, 2)


async def test_a_job_waiting_on_an_idle_dispatcher_survives_a_crash(dispatcher, engine):
    """A job taken from the queue just as the engine dies is not lost."""
    await engine.ready()
    await engine.dies()
    waiting = job()
    await submitted(dispatcher, waiting)
    assert (engine.started, dispatcher.depth) == ([], 1)
    await engine.ready()
    assert engine.started == [waiting.id]


async def test_a_job_that_kills_every_engine_is_given_up(dispatcher, engine):
    """After its last attempt a job fails with the reason, and the others go on."""
    poison = job()
    await submitted(dispatcher, poison)
    for _ in range(3):
        await engine.ready()
        await engine.dies()
    with pytest.raises(EngineCrashed, match="3 times"):
        await poison.wait()


async def test_a_model_that_cannot_be_loaded_is_told_to_whoever_runs_the_service(
    dispatcher, engine
):
    """It decides whether the service stays."""
    told: list[EngineFailed] = []
    dispatcher.load_failed = told.append
    failed = EngineFailed(code="gpu_busy", detail="taken")
    engine.tell(failed)
    assert told == [failed]


class Keeper(Observer):
    """Keeps some jobs on the disk."""

    def __init__(self, *kept: Job) -> None:
        self.kept = kept

    def keeps(self, job: Job) -> bool:
        return job in self.kept


async def test_without_a_model_kept_jobs_wait_for_the_next_start(dispatcher, engine, metrics):
    """Their owners hold a 202: they are not failed, and can still be cancelled."""
    kept, other = job(), job()
    dispatcher.observer = Keeper(kept)
    await submitted(dispatcher, kept, other)
    engine.state = EngineState.FAILED
    engine.tell(EngineFailed(code="model_error", detail="no such folder"))
    assert (kept.state, other.state) == (JobState.QUEUED, JobState.FAILED)
    assert (dispatcher.depth, value(metrics, "sd_queue_depth")) == (1, 1)
    dispatcher.cancel(kept, Cancelled())
    assert (kept.state, dispatcher.depth) == (JobState.CANCELLED, 0)


async def test_draining_ends_with_the_shutdown_time(metrics):
    """What is unfinished when the time is over fails with the reason."""
    config = Config(shutdown_timeout_seconds=0)
    dispatcher = Dispatcher([ScriptedEngine()], metrics, config)
    await dispatcher.start()
    waiting = job()
    dispatcher.submit(waiting)
    dispatcher.drain()
    with pytest.raises(ShuttingDown):
        await asyncio.wait_for(waiting.wait(), 10)
    await dispatcher.stop()


async def test_stopping_leaves_no_waiter_behind(dispatcher, engine):
    """Running and waiting jobs all end when the dispatcher stops."""
    await engine.ready()
    jobs = [job() for _ in range(3)]
    await submitted(dispatcher, *jobs)
    await dispatcher.stop()
    assert [each.state for each in jobs] == [JobState.CANCELLED] * 3


async def test_progress_and_speed_come_from_the_steps(dispatcher, engine, metrics):
    """A step moves its jobs on and is measured."""
    await engine.ready()
    running = job()
    await submitted(dispatcher, running)
    engine.tell(stepped(running, 7, seconds=0.5))
    assert running.steps_done == 7
    assert value(metrics, "sd_step_duration_seconds_sum", size_class="medium") == 0.5
    assert value(metrics, "sd_batch_size_count", size_class="medium") == 1
    assert value(metrics, "sd_batch_live_images") == 1
    await engine.finishes(running)
    assert value(metrics, "sd_batch_live_images") == 0


@pytest.mark.parametrize("last_word", [JobCancelled, JobFinished, JobFailed])
async def test_what_a_cancelled_job_had_cost_is_counted_as_wasted(
    dispatcher, engine, metrics, last_word
):
    """Whatever the engine says last of a job that nobody waits for, its time is known."""
    await engine.ready()
    late = job()
    await submitted(dispatcher, late)
    dispatcher.cancel(late, RequestTimedOut())
    more: dict[type, dict[str, Any]] = {
        JobCancelled: {"steps_done": 3},
        JobFinished: {"images": ()},
        JobFailed: {"code": "generation_failed", "detail": "It went wrong."},
    }
    times = StageTimes(text_encode=0.5, denoise=2.0)
    engine.tell(last_word(job_id=late.id, epoch=1, times=times, **more[last_word]))
    assert value(metrics, "sd_gpu_seconds_total", use="timed_out") == 2.5
    assert value(metrics, "sd_gpu_seconds_total", use="useful") == 0


async def test_work_that_went_down_with_an_engine_is_counted(dispatcher, engine, metrics):
    """The steps of running jobs and of those that were leaving are lost."""
    await engine.ready()
    running, late = job(), job()
    await submitted(dispatcher, running, late)
    shares = {running.id: 0.5, late.id: 0.25}
    both: dict[str, Any] = {
        "progress": dict.fromkeys(shares, 1),
        "epochs": dict.fromkeys(shares, 1),
    }
    engine.tell(Stepped(batch_size=2, pixels=2 * 512**2, seconds=0.75, shares=shares, **both))
    dispatcher.cancel(late, Disconnected())
    await engine.dies()
    assert value(metrics, "sd_gpu_seconds_total", use="lost") == 0.75
    assert value(metrics, "sd_gpu_seconds_total", use="disconnected") == 0


async def test_the_age_of_the_oldest_waiting_job_is_told(dispatcher, metrics):
    """It is 0 while none waits, and grows without any event."""
    assert value(metrics, "sd_queue_oldest_job_age_seconds") == 0
    waiting = job()
    await submitted(dispatcher, waiting)
    waiting.created -= 100
    assert 100 <= value(metrics, "sd_queue_oldest_job_age_seconds") < 200
