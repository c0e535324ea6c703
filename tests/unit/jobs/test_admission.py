"""What is let in, and what those are told who are not."""

import pytest

from service.diffusion.generation import (
    Capacity,
    JobFailed,
    Stepped,
)
from service.engine.base import EngineState
from service.engine.messages import EngineFailed
from service.errors import (
    EngineCrashed,
    EngineUnavailable,
    ModelUnavailable,
    OutOfMemory,
    QueueFull,
    ShuttingDown,
)
from service.jobs.circuit import CircuitState
from service.jobs.job import JobState
from service.telemetry.labels import ENGINE_STATES
from tests.scripted_engine import ScriptedEngine, job, settle, submitted, value


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


async def test_a_full_queue_refuses_with_a_time(consumer):
    """One job more than the queue holds is refused, and told when to come back."""
    await submitted(consumer, job(), job())
    with pytest.raises(QueueFull) as refused:
        consumer.submit(job())
    assert (refused.value.retry_after or 0) >= 1


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
    assert consumer.admission.ready
    engine.tell(Capacity(available=256 * 256 * 10 - 1, needs=need))
    assert not consumer.admission.ready
    await engine.dies()
    assert consumer.admission.capacity is None
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
