"""What is let in, and what those are told who are not."""

import pytest

from service.core.capacity import Capacity
from service.core.events import JobFailed
from service.core.stage import Stage
from service.engine.base import EngineState
from service.engine.protocol import EngineFailed
from service.errors import (
    ClusterUnreachable,
    EngineCrashed,
    EngineUnavailable,
    ModelUnavailable,
    OutOfMemory,
    QueueFull,
    ShuttingDown,
)
from service.jobs.dispatch.circuit import CircuitState
from service.jobs.job import JobState
from service.jobs.observer import Observer
from service.telemetry.labels import ENGINE_STATES
from tests.support.jobs.scripted_engine import (
    ScriptedEngine,
    job,
    settle,
    stepped,
    submitted,
    value,
)


async def test_a_refused_client_finds_the_place_it_was_promised(dispatcher, engine):
    """A newcomer does not take it, even if the place is free before its time."""
    await engine.ready()
    first, *_ = jobs = [job() for _ in range(4)]
    await submitted(dispatcher, *jobs)
    engine.tell(stepped(first, 20, pixels=20 * 512**2, seconds=20.0))
    with pytest.raises(QueueFull, match="2 requests are waiting"):
        dispatcher.submit(job(steps=7))
    await engine.finishes(first)
    with pytest.raises(QueueFull, match="promised"):
        dispatcher.submit(job(steps=9))


async def test_a_full_queue_refuses_with_a_time(dispatcher):
    """One job more than the queue holds is refused, and told when to come back."""
    await submitted(dispatcher, job(), job())
    with pytest.raises(QueueFull) as refused:
        dispatcher.submit(job())
    assert (refused.value.retry_after or 0) >= 1


async def test_a_burst_fills_the_batch_and_the_queue(dispatcher, engine):
    """Requests of one moment are accepted as far as batch and queue reach together."""
    await engine.ready()
    for each in [job() for _ in range(4)]:
        dispatcher.submit(each)
    with pytest.raises(QueueFull):
        dispatcher.submit(job())
    await settle()
    assert (dispatcher.running, dispatcher.depth) == (2, 2)


async def test_an_image_that_cannot_fit_is_refused_at_the_door(dispatcher, engine, metrics):
    """As long as it does not: a later word of the engine, with more memory, lets it in."""
    await engine.ready()
    need = {Stage.DENOISE: (0.0, 10.0)}
    engine.tell(Capacity(available=512 * 512 * 10 - 1, needs=need))

    with pytest.raises(OutOfMemory, match="512x512"):
        dispatcher.submit(job())
    engine.tell(Capacity(available=512 * 512 * 10, needs=need))
    dispatcher.submit(job())

    assert value(metrics, "sd_requests_refused_total", reason="memory") == 1
    assert value(metrics, "sd_memory_available_bytes") == 512 * 512 * 10
    assert value(metrics, "sd_memory_need_bytes", stage=Stage.DENOISE) == 512 * 512 * 10
    assert dispatcher.admission.ready
    engine.tell(Capacity(available=256 * 256 * 10 - 1, needs=need))
    assert not dispatcher.admission.ready
    await engine.dies()
    assert dispatcher.lead.capacity is None
    shown = {sample.name for family in metrics.registry.collect() for sample in family.samples}
    assert not any(name.startswith("sd_memory_") for name in shown)


async def test_without_a_model_waiting_jobs_fail_and_new_ones_are_refused(dispatcher, engine):
    """A model that cannot be loaded is told to everyone, at once."""
    waiting = job()
    await submitted(dispatcher, waiting)
    engine.state, engine.failure = EngineState.FAILED, "no such folder"
    engine.tell(EngineFailed(code="model_error", detail="no such folder"))
    with pytest.raises(ModelUnavailable, match="no such folder"):
        await waiting.wait()
    with pytest.raises(ModelUnavailable, match="no such folder"):
        dispatcher.submit(job())


async def crashed(engine: ScriptedEngine, times: int, restart_seconds: float = 0.0) -> None:
    """Let the engine come up and die."""
    for _ in range(times):
        await engine.ready()
        await engine.dies(restart_seconds)


async def test_an_engine_that_keeps_ending_opens_the_circuit(dispatcher, engine, metrics):
    """New work is refused until the next restart; what was accepted stays."""
    accepted = job()
    await submitted(dispatcher, accepted)
    await crashed(engine, 2)
    await crashed(engine, 3, restart_seconds=16)
    with pytest.raises(EngineCrashed):
        await accepted.wait()
    waiting = job()
    with pytest.raises(EngineUnavailable, match="5 times in a row") as refused:
        dispatcher.submit(waiting)
    # The back-off, and the second that loading took before.
    assert refused.value.retry_after == 17
    assert value(metrics, "sd_requests_refused_total", reason="circuit_open") == 1
    assert value(metrics, "sd_engine_state", state="circuit_open") == 1
    assert value(metrics, "sd_ready") == 0


async def test_without_a_cluster_only_promised_jobs_wait_for_an_engine(dispatcher, engine, metrics):
    """Who waits for an image is told at once; an engine that works is enough to wait for."""
    await engine.ready()
    dispatcher.admission.unreachable = lambda: 45.0
    accepted = job()
    await submitted(dispatcher, accepted)
    await engine.finishes(accepted)
    await engine.dies()
    with pytest.raises(ClusterUnreachable, match="not be reached for 45 s") as refused:
        dispatcher.submit(job())
    assert refused.value.retry_after == 30
    with pytest.raises(ClusterUnreachable):
        dispatcher.admission.check_ready()
    assert value(metrics, "sd_requests_refused_total", reason="cluster_unreachable") == 1
    promised = job()
    dispatcher.observer = Promises()
    await submitted(dispatcher, promised)
    dispatcher.admission.unreachable = lambda: 0.0
    await engine.ready()
    await engine.finishes(promised)
    assert promised.state is JobState.SUCCEEDED


async def test_who_waits_when_the_cluster_goes_away_keeps_its_place(dispatcher, engine):
    """Its position is told as before, and it runs when an engine is back."""
    await engine.ready()
    await engine.dies()
    await submitted(dispatcher, waits := job())
    dispatcher.admission.unreachable = lambda: 45.0
    with pytest.raises(ClusterUnreachable):
        dispatcher.submit(job())
    place = dispatcher.position(waits)
    assert place is not None
    assert (waits.state, place.number) == (JobState.QUEUED, 1)
    await engine.ready()
    await engine.finishes(waits)
    assert waits.state is JobState.SUCCEEDED


class Promises(Observer):
    """Says of every job that it outlives its client."""

    def promised(self, job):
        del job
        return True


async def test_jobs_wait_behind_an_open_circuit_and_run_one_at_a_time(dispatcher, engine, metrics):
    """The first one that is finished closes it, and then all run."""
    await crashed(engine, 4)
    jobs = [job(), job(), job()]
    await submitted(dispatcher, *jobs[:2])
    await crashed(engine, 1)
    assert dispatcher.depth == 2
    await engine.ready()
    assert (dispatcher.running, dispatcher.depth) == (1, 1)
    with pytest.raises(EngineUnavailable):
        dispatcher.submit(jobs[2])
    await engine.finishes(jobs[0])
    assert value(metrics, "sd_engine_state", state="ready") == 1
    assert value(metrics, "sd_ready") == 1
    await submitted(dispatcher, jobs[2])
    assert (dispatcher.running, dispatcher.depth) == (2, 0)


async def test_an_idle_engine_behind_an_open_circuit_is_tried_with_one_new_job(dispatcher, engine):
    """Else nothing would ever close it; whether that job is finished is waited for."""
    await crashed(engine, 5)
    await engine.ready()
    probe, other = job(), job()
    await submitted(dispatcher, probe)
    assert (dispatcher.running, dispatcher.admission.ready) == (1, False)
    with pytest.raises(EngineUnavailable):
        dispatcher.submit(other)
    engine.tell(JobFailed(job_id=probe.id, epoch=1, code="out_of_memory", detail="ask for less"))
    assert dispatcher.admission.ready  # It proved nothing, and the next one may.
    await submitted(dispatcher, other)
    await engine.finishes(other)
    assert dispatcher.lead.circuit_state is CircuitState.CLOSED


async def test_one_poison_job_opens_no_circuit(dispatcher, engine):
    """It is given up before, and those who wait for others are not refused."""
    poison, other = job(), job()
    await submitted(dispatcher, poison)
    await crashed(engine, 3)
    assert poison.state is JobState.FAILED
    await submitted(dispatcher, other)
    await engine.ready()
    await engine.finishes(other)
    assert other.state is JobState.SUCCEEDED


async def test_a_draining_dispatcher_finishes_but_takes_nothing_new(dispatcher, engine):
    """What was accepted still runs; what comes now is refused."""
    await engine.ready()
    accepted = job()
    await submitted(dispatcher, accepted)
    dispatcher.drain()
    with pytest.raises(ShuttingDown):
        dispatcher.submit(job())
    await engine.finishes(accepted)
    assert accepted.state is JobState.SUCCEEDED


async def test_readiness_and_state_follow_the_engine(dispatcher, engine, metrics):
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
    dispatcher.drain()
    assert state() == (["ready"], 0)
