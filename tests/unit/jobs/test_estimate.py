"""Predicting time from the steps that were seen."""

import pytest

from service.diffusion.generation import GenerationRequest
from service.jobs.estimate import Estimate
from service.jobs.job import Job

PIXELS = 512 * 512


def job(steps: int = 20) -> Job:
    return Job(request=GenerationRequest(prompt="a cat", steps=steps))


@pytest.fixture
def estimate() -> Estimate:
    """Teach an estimate one step of half a second for one 512x512 picture."""
    learned = Estimate()
    learned.observe(pixels=PIXELS, seconds=0.5)
    return learned


async def test_seconds_are_steps_times_the_measured_step(estimate):
    """Twenty steps of half a second are ten seconds."""
    assert estimate.seconds([job(20)]) == pytest.approx(10)


async def test_steps_already_done_are_not_counted(estimate):
    """A running job needs only what it has not done yet."""
    half_done = job(20)
    half_done.steps_done = 10
    assert estimate.seconds([half_done]) == pytest.approx(5)


async def test_a_batch_of_two_costs_half_a_step_each():
    """A step shared by two pictures teaches the cost of one."""
    shared = Estimate()
    shared.observe(pixels=2 * PIXELS, seconds=0.5)
    assert shared.seconds([job(20)]) == pytest.approx(5)


async def test_the_estimate_follows_a_lasting_change(estimate):
    """After many steps at a new speed the old speed is forgotten."""
    for _ in range(100):
        estimate.observe(pixels=PIXELS, seconds=1.0)
    assert estimate.seconds([job(20)]) == pytest.approx(20, rel=0.01)


async def test_a_place_is_free_when_the_running_job_is_done(estimate):
    """The first refused client comes back when the running job leaves."""
    assert estimate.retry_after((job(),), (job(20),), now=0) == 10


async def test_each_further_refused_client_is_sent_later(estimate):
    """Two refused clients are not told to take the same place."""
    waiting, running = (job(20), job(20)), (job(20),)
    assert [estimate.retry_after(waiting, running, now=0) for _ in range(3)] == [10, 20, 30]


async def test_nobody_is_sent_further_than_the_present_work(estimate):
    """A client that asks again and again sends neither itself nor others into next week."""
    waiting, running = (job(20), job(20)), (job(20),)
    for _ in range(300):
        last = estimate.retry_after(waiting, running, now=0)
    assert last == 30
    assert estimate.retry_after(waiting, running, now=25) <= 30
    assert len(estimate._promises) <= 3


async def test_a_promise_that_is_over_delays_nobody(estimate):
    """A refusal long ago does not send today's client further away."""
    estimate.retry_after((job(),), (job(),), now=0)
    assert estimate.retry_after((job(),), (job(),), now=1000) == 10


async def test_nobody_is_sent_back_at_once(estimate):
    """Even with nearly nothing left to do, a client waits a second."""
    assert estimate.retry_after((), (), now=0) == 1
