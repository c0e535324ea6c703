"""The task that feeds an engine, over an engine whose events the test decides."""

import asyncio
from typing import Any

import pytest

from service.config import Config
from service.diffusion.generation import (
    Capacity,
    GenerationRequest,
    JobCancelled,
    JobFailed,
    JobFinished,
    ModelInfo,
    OutOfMemoryHit,
    StageTimes,
    Stepped,
)
from service.engine.base import Engine, EngineState
from service.engine.messages import EngineExited, EngineFailed, EngineReady
from service.errors import (
    Cancelled,
    EngineCrashed,
    EngineUnavailable,
    ModelUnavailable,
    OutOfMemory,
    QueueFull,
    RequestTimedOut,
    ShuttingDown,
)
from service.jobs.circuit import CircuitState
from service.jobs.consumer import Consumer
from service.jobs.job import Job, JobState
from service.jobs.observer import Nobody
from service.telemetry.labels import ENGINE_STATES
from service.telemetry.metrics import Metrics

MODEL = ModelInfo(
    model_id="demo",
    version="demo-1",
    family="sd",
    demo=True,
    device="cpu",
    gpu=False,
    dtype="float32",
    load_seconds=1.0,
)


class ScriptedEngine(Engine):
    """Write down commands; the test plays the events."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.cancelled: list[str] = []

    async def start(self, listener) -> None:
        self.state = EngineState.LOADING
        self.tell = listener

    async def stop(self) -> None:
        self.state = EngineState.STOPPED

    def generate(self, job_id, request) -> None:
        self.started.append(job_id)

    def cancel(self, job_id) -> None:
        self.cancelled.append(job_id)

    async def ready(self) -> None:
        self.state, self.model = EngineState.READY, MODEL
        self.tell(EngineReady(model=MODEL))
        await settle()

    async def dies(self, restart_seconds: float = 0.0) -> None:
        self.state = EngineState.RESTARTING
        self.tell(EngineExited(exit_code=-9, restarts=1, restart_seconds=restart_seconds))
        await settle()

    async def finishes(self, job: Job) -> None:
        self.tell(JobFinished(job_id=job.id, pictures=()))
        await settle()


async def settle() -> None:
    """Let the consumer task run until it waits again."""
    for _ in range(5):
        await asyncio.sleep(0)


def job(**fields) -> Job:
    return Job(request=GenerationRequest(prompt="a cat", **fields))


@pytest.fixture
def metrics() -> Metrics:
    """Make metrics in a registry of their own."""
    return Metrics()


@pytest.fixture
async def consumer(metrics):
    """Start a consumer with a batch of two and a queue of two; its engine is not ready yet."""
    config = Config(max_concurrent_requests=2, queue_size=2, shutdown_timeout_seconds=60)
    started = Consumer(ScriptedEngine(), metrics, config)
    await started.start()
    yield started
    await started.stop()


@pytest.fixture
def engine(consumer) -> ScriptedEngine:
    """Return the consumer's engine."""
    assert isinstance(consumer.engine, ScriptedEngine)
    return consumer.engine


def value(metrics: Metrics, name: str, **labels: str) -> float:
    found = metrics.registry.get_sample_value(name, labels)
    assert found is not None
    return found


async def submitted(consumer: Consumer, *jobs: Job) -> None:
    for each in jobs:
        consumer.submit(each)
        await settle()


async def test_jobs_wait_until_the_engine_is_ready(consumer, engine):
    """What is accepted while the model loads starts as soon as it is loaded."""
    waiting = job()
    await submitted(consumer, waiting)
    assert (engine.started, consumer.depth) == ([], 1)
    await engine.ready()
    assert (engine.started, consumer.depth, waiting.state) == ([waiting.id], 0, JobState.RUNNING)


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


async def test_a_waiting_job_is_told_where_it_stands(consumer, engine):
    """The number counts from 1; a running job has none."""
    await engine.ready()
    running, _, waiting = jobs = [job(), job(), job()]
    await submitted(consumer, *jobs)
    assert consumer.position(running) is None
    position = consumer.position(waiting)
    assert position is not None
    assert position.number == 1
    assert position.start_seconds > 0


async def test_a_refused_client_finds_the_place_it_was_promised(consumer, engine):
    """A newcomer does not take it, even if the place is free before its time."""
    await engine.ready()
    first, *_ = jobs = [job() for _ in range(4)]
    await submitted(consumer, *jobs)
    engine.tell(Stepped(progress={first.id: 20}, pixels=20 * 512**2, seconds=20.0, batch_size=1))
    with pytest.raises(QueueFull, match="2 requests are waiting"):
        consumer.submit(job(steps=7))
    await engine.finishes(first)
    with pytest.raises(QueueFull, match="promised"):
        consumer.submit(job(steps=9))


async def test_room_is_counted_in_pictures(consumer, engine):
    """A job of two pictures fills a batch of two."""
    await engine.ready()
    await submitted(consumer, job(num_images=2), job())
    assert (len(engine.started), consumer.depth) == (1, 1)


async def test_a_finished_job_hands_over_its_result_and_model(consumer, engine):
    """The waiter gets the pictures, and the job names the model they came from."""
    await engine.ready()
    made = job()
    await submitted(consumer, made)
    await engine.finishes(made)
    assert await made.wait() == JobFinished(job_id=made.id, pictures=())
    assert (made.state, made.model_version) == (JobState.SUCCEEDED, "demo-1")


async def test_a_failed_job_raises_its_error(consumer, engine, metrics):
    """The engine's code becomes the error class of that name, for that job alone."""
    await engine.ready()
    failed, other = job(), job()
    await submitted(consumer, failed, other)
    engine.tell(OutOfMemoryHit(stage="vae_decode", batch_size=1))
    engine.tell(JobFailed(job_id=failed.id, code="out_of_memory", detail="ask for less"))
    with pytest.raises(OutOfMemory, match="ask for less"):
        await failed.wait()
    assert other.state is JobState.RUNNING
    assert value(metrics, "sd_oom_total", stage="vae_decode", rung="fail") == 1
    assert value(metrics, "sd_jobs_total", outcome="failed", code="out_of_memory") == 1


async def test_a_full_queue_refuses_with_a_time(consumer):
    """One job more than the queue holds is refused, and told when to come back."""
    await submitted(consumer, job(), job())
    with pytest.raises(QueueFull) as refused:
        consumer.submit(job())
    assert (refused.value.retry_after or 0) >= 1


async def test_a_waiting_job_that_is_cancelled_frees_its_place(consumer, engine, metrics):
    """Nobody runs a job whose client hung up, and its place is free at once."""
    gone, other = job(), job()
    await submitted(consumer, gone, other)
    consumer.cancel(gone, Cancelled())
    assert (consumer.depth, value(metrics, "sd_queue_depth")) == (1, 1)
    await engine.ready()
    assert (engine.started, engine.cancelled) == ([other.id], [])
    assert value(metrics, "sd_jobs_total", outcome="client_gone", code="") == 1


async def test_a_running_job_that_is_cancelled_leaves_the_batch(consumer, engine, metrics):
    """The engine is told, and the next job takes the place."""
    await engine.ready()
    late, other, third = job(), job(), job()
    await submitted(consumer, late, other, third)
    consumer.cancel(late, RequestTimedOut())
    await settle()
    assert (engine.cancelled, engine.started[-1]) == ([late.id], third.id)
    assert value(metrics, "sd_jobs_total", outcome="timed_out", code="") == 1


async def test_cancelling_what_has_ended_changes_nothing(consumer, engine):
    """A cancel that comes too late does not touch the result."""
    await engine.ready()
    made = job()
    await submitted(consumer, made)
    await engine.finishes(made)
    consumer.cancel(made, Cancelled())
    assert (made.state, engine.cancelled) == (JobState.SUCCEEDED, [])


async def test_a_result_that_comes_after_the_cancel_is_dropped(consumer, engine):
    """A picture finished in the very step of its cancel goes nowhere, without an error."""
    await engine.ready()
    late = job()
    await submitted(consumer, late)
    consumer.cancel(late, Cancelled())
    await engine.finishes(late)
    assert late.state is JobState.CANCELLED


async def test_jobs_of_a_dead_engine_run_again_first_and_in_order(consumer, engine, metrics):
    """After a crash what was in work goes before what waits, even above the queue's bound."""
    await engine.ready()
    first, second, *_ = jobs = [job() for _ in range(4)]
    await submitted(consumer, *jobs)
    await engine.dies()
    assert (consumer.depth, consumer.running, first.state) == (4, 0, JobState.QUEUED)
    await engine.ready()
    assert engine.started == [first.id, second.id, first.id, second.id]
    assert value(metrics, "sd_engine_restarts_total", reason="killed") == 1


async def test_a_job_waiting_on_an_idle_consumer_survives_a_crash(consumer, engine):
    """A job taken from the queue just as the engine dies is not lost."""
    await engine.ready()
    await engine.dies()
    waiting = job()
    await submitted(consumer, waiting)
    assert (engine.started, consumer.depth) == ([], 1)
    await engine.ready()
    assert engine.started == [waiting.id]


async def test_a_job_that_kills_every_engine_is_given_up(consumer, engine):
    """After its last attempt a job fails with the reason, and the others go on."""
    poison = job()
    await submitted(consumer, poison)
    for _ in range(3):
        await engine.ready()
        await engine.dies()
    with pytest.raises(EngineCrashed, match="3 times"):
        await poison.wait()


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


async def test_a_burst_fills_the_batch_and_the_queue(consumer, engine):
    """Requests of one moment are accepted as far as batch and queue reach together."""
    await engine.ready()
    for each in [job() for _ in range(4)]:
        consumer.submit(each)
    with pytest.raises(QueueFull):
        consumer.submit(job())
    await settle()
    assert (consumer.running, consumer.depth) == (2, 2)


async def test_a_picture_that_cannot_fit_is_refused_at_the_door(consumer, engine, metrics):
    """As long as it does not: a later word of the engine, with more memory, lets it in."""
    await engine.ready()
    need = {"denoise": (0.0, 10.0)}
    engine.tell(Capacity(available=512 * 512 * 10 - 1, needs=need))

    with pytest.raises(OutOfMemory, match="512x512"):
        consumer.submit(job())
    engine.tell(Capacity(available=512 * 512 * 10, needs=need))
    consumer.submit(job())

    assert value(metrics, "sd_requests_refused_total", reason="memory") == 1
    assert value(metrics, "sd_memory_available_bytes") == 512 * 512 * 10
    assert value(metrics, "sd_memory_need_bytes", stage="denoise") == 512 * 512 * 10
    await engine.dies()
    shown = {sample.name for family in metrics.registry.collect() for sample in family.samples}
    assert not any(name.startswith("sd_memory_") for name in shown)


async def test_without_a_model_waiting_jobs_fail_and_new_ones_are_refused(consumer, engine):
    """A model that cannot be loaded is told to everyone, at once."""
    waiting = job()
    await submitted(consumer, waiting)
    engine.state, engine.failure = EngineState.FAILED, "no such folder"
    engine.tell(EngineFailed(code="model_error", detail="no such folder"))
    with pytest.raises(ModelUnavailable, match="no such folder"):
        await waiting.wait()
    with pytest.raises(ModelUnavailable, match="no such folder"):
        consumer.submit(job())


class Keeper(Nobody):
    """Keeps some jobs on the disk."""

    def __init__(self, *kept: Job) -> None:
        self.kept = kept

    def keeps(self, job: Job) -> bool:
        return job in self.kept


async def test_without_a_model_kept_jobs_wait_for_the_next_start(consumer, engine, metrics):
    """Their owners hold a 202: they are not failed, and can still be cancelled."""
    kept, other = job(), job()
    consumer.observer = Keeper(kept)
    await submitted(consumer, kept, other)
    engine.state = EngineState.FAILED
    engine.tell(EngineFailed(code="model_error", detail="no such folder"))
    assert (kept.state, other.state) == (JobState.QUEUED, JobState.FAILED)
    assert (consumer.depth, value(metrics, "sd_queue_depth")) == (1, 1)
    consumer.cancel(kept, Cancelled())
    assert (kept.state, consumer.depth) == (JobState.CANCELLED, 0)


async def crashed(engine: ScriptedEngine, times: int, restart_seconds: float = 0.0) -> None:
    """Let the engine come up and die."""
    for _ in range(times):
        await engine.ready()
        await engine.dies(restart_seconds)


async def test_an_engine_that_keeps_ending_opens_the_circuit(consumer, engine, metrics):
    """New work is refused until the next restart; what was accepted stays."""
    accepted = job()
    await submitted(consumer, accepted)
    await crashed(engine, 2)
    await crashed(engine, 3, restart_seconds=16)
    with pytest.raises(EngineCrashed):
        await accepted.wait()
    waiting = job()
    with pytest.raises(EngineUnavailable, match="5 times in a row") as refused:
        consumer.submit(waiting)
    # The back-off, and the second that loading took before.
    assert refused.value.retry_after == 17
    assert value(metrics, "sd_requests_refused_total", reason="circuit_open") == 1
    assert value(metrics, "sd_engine_state", state="circuit_open") == 1
    assert value(metrics, "sd_ready") == 0


async def test_jobs_wait_behind_an_open_circuit_and_run_one_at_a_time(consumer, engine, metrics):
    """The first one that is finished closes it, and then all run."""
    await crashed(engine, 4)
    jobs = [job(), job(), job()]
    await submitted(consumer, *jobs[:2])
    await crashed(engine, 1)
    assert consumer.depth == 2
    await engine.ready()
    assert (consumer.running, consumer.depth) == (1, 1)
    with pytest.raises(EngineUnavailable):
        consumer.submit(jobs[2])
    await engine.finishes(jobs[0])
    assert value(metrics, "sd_engine_state", state="ready") == 1
    assert value(metrics, "sd_ready") == 1
    await submitted(consumer, jobs[2])
    assert (consumer.running, consumer.depth) == (2, 0)


async def test_an_idle_engine_behind_an_open_circuit_is_tried_with_one_new_job(consumer, engine):
    """Else nothing would ever close it; whether that job is finished is waited for."""
    await crashed(engine, 5)
    await engine.ready()
    probe, other = job(), job()
    await submitted(consumer, probe)
    assert (consumer.running, consumer.admission.ready) == (1, False)
    with pytest.raises(EngineUnavailable):
        consumer.submit(other)
    engine.tell(JobFailed(job_id=probe.id, code="out_of_memory", detail="ask for less"))
    assert consumer.admission.ready  # It proved nothing, and the next one may.
    await submitted(consumer, other)
    await engine.finishes(other)
    assert consumer.admission.circuit is CircuitState.CLOSED


async def test_one_poison_job_opens_no_circuit(consumer, engine):
    """It is given up before, and those who wait for others are not refused."""
    poison, other = job(), job()
    await submitted(consumer, poison)
    await crashed(engine, 3)
    assert poison.state is JobState.FAILED
    await submitted(consumer, other)
    await engine.ready()
    await engine.finishes(other)
    assert other.state is JobState.SUCCEEDED


async def test_a_draining_consumer_finishes_but_takes_nothing_new(consumer, engine):
    """What was accepted still runs; what comes now is refused."""
    await engine.ready()
    accepted = job()
    await submitted(consumer, accepted)
    consumer.drain()
    with pytest.raises(ShuttingDown):
        consumer.submit(job())
    await engine.finishes(accepted)
    assert accepted.state is JobState.SUCCEEDED


async def test_draining_ends_with_the_shutdown_time(metrics):
    """What is unfinished when the time is over fails with the reason."""
    config = Config(shutdown_timeout_seconds=0)
    consumer = Consumer(ScriptedEngine(), metrics, config)
    await consumer.start()
    waiting = job()
    consumer.submit(waiting)
    consumer.drain()
    with pytest.raises(ShuttingDown):
        await asyncio.wait_for(waiting.wait(), 10)
    await consumer.stop()


async def test_stopping_leaves_no_waiter_behind(consumer, engine):
    """Running and waiting jobs all end when the consumer stops."""
    await engine.ready()
    jobs = [job() for _ in range(3)]
    await submitted(consumer, *jobs)
    await consumer.stop()
    assert [each.state for each in jobs] == [JobState.CANCELLED] * 3


async def test_progress_and_speed_come_from_the_steps(consumer, engine, metrics):
    """A step moves its jobs on and is measured."""
    await engine.ready()
    running = job()
    await submitted(consumer, running)
    engine.tell(Stepped(progress={running.id: 7}, batch_size=1, pixels=512 * 512, seconds=0.5))
    assert running.steps_done == 7
    assert value(metrics, "sd_step_duration_seconds_sum", size_class="medium") == 0.5
    assert value(metrics, "sd_batch_size_count", size_class="medium") == 1
    assert value(metrics, "sd_batch_live_images") == 1
    await engine.finishes(running)
    assert value(metrics, "sd_batch_live_images") == 0


@pytest.mark.parametrize("last_word", [JobCancelled, JobFinished, JobFailed])
async def test_what_a_cancelled_job_had_cost_is_counted_as_wasted(
    consumer, engine, metrics, last_word
):
    """Whatever the engine says last of a job that nobody waits for, its time is known."""
    await engine.ready()
    late = job()
    await submitted(consumer, late)
    consumer.cancel(late, RequestTimedOut())
    more: dict[type, dict[str, Any]] = {
        JobCancelled: {"steps_done": 3},
        JobFinished: {"pictures": ()},
        JobFailed: {"code": "generation_failed", "detail": "It went wrong."},
    }
    times = StageTimes(text_encode=0.5, denoise=2.0)
    engine.tell(last_word(job_id=late.id, times=times, **more[last_word]))
    assert value(metrics, "sd_gpu_seconds_total", use="timed_out") == 2.5
    assert value(metrics, "sd_gpu_seconds_total", use="useful") == 0


async def test_work_that_went_down_with_an_engine_is_counted(consumer, engine, metrics):
    """The steps of running jobs and of those that were leaving are lost."""
    await engine.ready()
    running, late = job(), job()
    await submitted(consumer, running, late)
    shares = {running.id: 0.5, late.id: 0.25}
    engine.tell(Stepped(batch_size=2, pixels=2 * 512**2, seconds=0.75, shares=shares))
    consumer.cancel(late, Cancelled())
    await engine.dies()
    assert value(metrics, "sd_gpu_seconds_total", use="lost") == 0.75
    assert value(metrics, "sd_gpu_seconds_total", use="client_gone") == 0


async def test_readiness_and_state_follow_the_engine(consumer, engine, metrics):
    """Exactly one state is 1; work is welcome only in the state ready, and not while draining."""

    def state() -> tuple[list[str], float]:
        on = [s for s in ENGINE_STATES if value(metrics, "sd_engine_state", state=s)]
        return on, value(metrics, "sd_ready")

    assert state() == (["loading"], 0)
    await engine.ready()
    assert state() == (["ready"], 1)
    await engine.dies()
    assert state() == (["restarting"], 0)
    await engine.ready()
    consumer.drain()
    assert state() == (["ready"], 0)


async def test_the_age_of_the_oldest_waiting_job_is_told(consumer, metrics):
    """It is 0 while none waits, and grows without any event."""
    assert value(metrics, "sd_queue_oldest_job_age_seconds") == 0
    waiting = job()
    await submitted(consumer, waiting)
    waiting.created -= 100
    assert 100 <= value(metrics, "sd_queue_oldest_job_age_seconds") < 200
