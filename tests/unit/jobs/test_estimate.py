"""Predicting time from the steps that were seen."""

import pytest

from service.diffusion.generation import GenerationRequest
from service.jobs.estimate import Estimate
from service.jobs.job import Job
from service.jobs.work import REST_STEPS

PIXELS = 512 * 512


def job(steps: int = 20) -> Job:
    return Job(request=GenerationRequest(prompt="a cat", steps=steps))


@pytest.fixture
def estimate() -> Estimate:
    """Teach an estimate a step of half a second for one 512x512 picture that decodes in no time."""
    learned = Estimate()
    learned.observe(pixels=PIXELS, seconds=0.5)
    learned.observe_rest(pixels=PIXELS, seconds=0)
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
    shared.observe_rest(pixels=PIXELS, seconds=0)
    assert shared.seconds([job(20)]) == pytest.approx(5)


async def test_the_estimate_follows_a_lasting_change(estimate):
    """After many steps at a new speed the old speed is forgotten."""
    for _ in range(100):
        estimate.observe(pixels=PIXELS, seconds=1.0)
    assert estimate.seconds([job(20)]) == pytest.approx(20, rel=0.01)


async def test_the_rest_of_a_picture_is_learned(estimate):
    """What finished jobs took beside their steps is expected of the others."""
    for _ in range(100):
        estimate.observe_rest(pixels=2 * PIXELS, seconds=4.0)
    assert estimate.rest_steps == pytest.approx(4, rel=0.01)
    assert estimate.seconds([job(20)]) == pytest.approx(12, rel=0.01)


async def test_before_a_picture_was_finished_the_rest_is_guessed():
    """The first guess is the one that the order of the queue is made with."""
    fresh = Estimate()
    fresh.observe(pixels=PIXELS, seconds=0.5)
    assert fresh.seconds([job(20)]) == pytest.approx((20 + REST_STEPS) * 0.5)
