"""Two engines behind one queue, when one of them fails."""

import pytest

from service.core.capacity import Capacity
from service.core.events import JobFinished
from service.core.stage import Stage
from service.engine.base import EngineState
from service.engine.protocol import EngineFailed
from service.errors import EngineUnavailable, ModelUnavailable, OutOfMemory
from service.http.native.health import status
from service.jobs.dispatch.circuit import CRASHES_TO_OPEN, CircuitState
from service.jobs.job import JobState
from tests.support.jobs.scripted_engine import job, settle, stepped, submitted, value

PIXEL = {Stage.DENOISE: (0.0, 1.0)}
"""An image takes a byte for each of its pixels."""

SMALL = Capacity(available=512**2, needs=PIXEL)
LARGE = Capacity(available=768**2, needs=PIXEL)
FAILED = EngineFailed(code="model_error", detail="no such folder")


async def test_a_crash_requeues_the_jobs_of_that_engine_alone(pair, engines, metrics):
    """The others go on, and what was lost runs where there is room first."""
    first, second = engines
    a, b, c = jobs = [job() for _ in range(3)]
    await submitted(pair, *jobs)
    await second.dies()
    assert [each.state for each in jobs] == [JobState.RUNNING, JobState.QUEUED, JobState.QUEUED]
    assert pair.admission.ready
    await first.finishes(a)
    assert (first.started, b.engine, b.attempts) == ([a.id, b.id], "0", 2)
    await second.ready()
    assert second.started == [b.id, c.id]
    restarts = [
        value(metrics, "sd_engine_restarts_total", engine=name, reason="killed")
        for name in ("0", "1")
    ]
    assert restarts == [0, 1]


async def test_what_an_engine_says_of_an_earlier_attempt_is_not_heard(pair, engines):
    """The job has moved: it ends when the engine that has it now says so."""
    first, second = engines
    a, b = job(), job()
    await submitted(pair, a, b)
    await second.dies()
    await first.finishes(a)
    assert b.engine == "0"
    second.tell(stepped(b, 9, seconds=1.0))
    second.tell(JobFinished(job_id=b.id, epoch=1, images=()))
    await settle()
    assert (b.state, b.steps_done) == (JobState.RUNNING, 0)
    await first.finishes(b)
    assert b.state is JobState.SUCCEEDED


async def test_a_job_that_lost_an_engine_prefers_one_that_works(pair, engines):
    """An engine that keeps ending does not use up the attempts of a job.

    That it ended once counts for the last attempt only: before, an idle engine is better.
    """
    first, second = engines
    a, b = job(), job()
    await submitted(pair, a, b)
    await second.dies()
    await second.ready()
    assert second.started == [b.id, b.id]
    await second.dies()
    await second.ready()
    assert second.started == [b.id, b.id]  # The first one is busy, but has not ended.
    new = job()
    await submitted(pair, new)
    assert second.started == [b.id, b.id, new.id]
    await first.finishes(a)
    assert (first.started, b.attempts) == ([a.id, b.id], 3)


async def test_an_open_circuit_is_that_of_one_engine(pair, engines, metrics):
    """Work goes on at the other: nothing is refused, and the service is ready."""
    first, second = engines
    for _ in range(CRASHES_TO_OPEN):
        await second.dies(restart_seconds=30)
    shown = [
        value(metrics, "sd_engine_state", engine=name, state="circuit_open") for name in ("0", "1")
    ]
    assert (shown, pair.admission.ready, status(pair)) == ([0, 1], True, "healthy")
    a, b, c = jobs = [job() for _ in range(3)]
    await submitted(pair, *jobs)
    assert (first.started, second.started) == ([a.id], [])
    await second.ready()
    assert second.started == [b.id]
    found = [pair.slots[1].circuit_state]
    await second.finishes(b)
    assert [*found, pair.slots[1].circuit_state] == [CircuitState.HALF_OPEN, CircuitState.CLOSED]
    assert second.started == [b.id, c.id]


async def test_with_all_circuits_open_the_soonest_restart_is_told(pair, engines):
    """Nothing new is taken until one of them is tried."""
    for engine, seconds in zip(engines, (30, 5), strict=True):
        for _ in range(CRASHES_TO_OPEN):
            await engine.dies(restart_seconds=seconds)
    assert (pair.admission.ready, status(pair)) == (False, "degraded")
    with pytest.raises(EngineUnavailable) as refused:
        pair.submit(job())
    assert refused.value.retry_after == 6  # And a second for the load.


async def test_a_job_is_given_to_an_engine_that_has_the_memory(pair, engines):
    """It waits for that one, and the jobs behind it go on where it cannot."""
    first, second = engines
    first.tell(SMALL)
    second.tell(LARGE)
    large = [job(width=768, height=768) for _ in range(3)]
    small = job(steps=50)
    await submitted(pair, *large[:2], small)
    assert (first.started, second.started) == ([small.id], [large[0].id])
    await second.finishes(large[0])
    await first.finishes(small)
    await submitted(pair, large[2])
    assert (first.started, second.started) == ([small.id], [large[0].id, large[1].id])
    assert (pair.depth, pair.running) == (1, 1)
    second.tell(SMALL)  # What fits nowhere any more: an engine may still find a way.
    await settle()
    assert first.started == [small.id, large[2].id]


async def test_memory_refuses_what_fits_no_engine(pair, engines, metrics):
    """With the advice of the larger one; an engine that has not said may have enough."""
    first, second = engines
    huge = {"width": 1024, "height": 1024}
    first.tell(SMALL)
    pair.submit(job(**huge))
    second.tell(LARGE)
    with pytest.raises(OutOfMemory, match="768x768 or less"):
        pair.submit(job(**huge))
    pair.submit(job(width=768, height=768))
    assert value(metrics, "sd_requests_refused_total", reason="memory") == 1
    await second.dies()
    assert [slot.capacity for slot in pair.slots] == [SMALL, None]


async def test_too_little_memory_for_anything_on_one_engine(pair, engines):
    """The service is ready as long as another one has some."""
    none = Capacity(available=0, needs=PIXEL)
    engines[0].tell(none)
    assert pair.admission.ready
    engines[1].tell(none)
    assert not pair.admission.ready


async def test_a_model_that_one_engine_cannot_load_fails_no_job(pair, engines):
    """They wait for the other; when that one cannot load it either they fail."""
    first, second = engines
    told: list[EngineFailed] = []
    pair.load_failed = told.append
    for engine in engines:
        await engine.dies()
    waiting = job()
    await submitted(pair, waiting)
    first.state, first.failure = EngineState.FAILED, FAILED.detail
    first.tell(FAILED)
    assert (waiting.state, told, status(pair)) == (JobState.QUEUED, [], "restarting")
    await second.ready()
    assert second.started == [waiting.id]
    await second.finishes(waiting)
    assert (waiting.state, pair.admission.ready) == (JobState.SUCCEEDED, True)

    await second.dies()
    late = job()
    await submitted(pair, late)
    second.state, second.failure = EngineState.FAILED, FAILED.detail
    second.tell(FAILED)
    assert (late.state, told, status(pair)) == (JobState.FAILED, [FAILED], "degraded")
    with pytest.raises(ModelUnavailable, match="no such folder"):
        pair.submit(job())


async def test_a_silent_engine_leaves_the_service_ready(pair, engines, metrics):
    """As long as another one answers; each shows its own silence."""
    engines[0].quiet = 7.0
    ages = [value(metrics, "sd_engine_heartbeat_age_seconds", engine=name) for name in ("0", "1")]
    assert (ages, pair.admission.ready) == ([7.0, 0.0], True)
    engines[1].quiet = 9.0
    with pytest.raises(EngineUnavailable, match="7 s"):
        pair.admission.check_ready()


async def test_a_last_chance_empties_one_engine_and_no_more(pair, engines):
    """The one with the least work left; the jobs behind it start on the other."""
    first, second = engines
    poison = job(steps=50)
    await submitted(pair, poison)
    await first.dies()
    assert second.started == [poison.id]
    await second.dies()
    await first.ready()
    await second.ready()
    assert (first.started[1:], second.started[1:]) == ([poison.id], [])
    others = [job(), job(), job()]
    await submitted(pair, *others)
    assert (first.started[2:], second.started[1:]) == ([], [others[0].id])
    await second.finishes(others[0])
    assert second.started[2:] == [others[1].id]
    await first.finishes(poison)
    assert poison.state is JobState.SUCCEEDED
    assert first.started[2:] == [others[2].id]
