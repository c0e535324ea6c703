"""Predicting time from the steps that were seen."""

import pytest

from service.core.spec import GenerationSpec
from service.core.work import REST_STEPS
from service.jobs.job import Job
from service.jobs.queue.estimate import Estimate

PIXELS = 512 * 512


def job(steps: int = 20) -> Job:
    return Job(request=GenerationSpec(prompt="a cat", steps=steps))


@pytest.fixture
def estimate() -> Estimate:
    """Teach an estimate a step of half a second for one 512x512 image that decodes in no time."""
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
    """A step shared by two images teaches the cost of one."""
    shared = Estimate()
    shared.observe(pixels=2 * PIXELS, seconds=0.5)
    shared.observe_rest(pixels=PIXELS, seconds=0)
    assert shared.seconds([job(20)]) == pytest.approx(5)


async def test_the_estimate_follows_a_lasting_change(estimate):
    """After many steps at a new speed the old speed is forgotten."""
    for _ in range(100):
        estimate.observe(pixels=PIXELS, seconds=1.0)
    assert estimate.seconds([job(20)]) == pytest.approx(20, rel=0.01)


async def test_the_rest_of_an_image_is_learned(estimate):
    """What finished jobs took beside their steps is expected of the others."""
    for _ in range(100):
        estimate.observe_rest(pixels=2 * PIXELS, seconds=4.0)
    assert estimate.rest_steps == pytest.approx(4, rel=0.01)
    assert estimate.seconds([job(20)]) == pytest.approx(12, rel=0.01)


async def test_before_an_image_was_finished_the_rest_is_guessed():
    """The first guess is the one that the order of the queue is made with."""
    fresh = Estimate()
    fresh.observe(pixels=PIXELS, seconds=0.5)
    assert fresh.seconds([job(20)]) == pytest.approx((20 + REST_STEPS) * 0.5)


async def test_one_odd_step_moves_the_estimate_by_a_tenth(estimate):
    """So does one odd job; a single hiccup must not change what a whole line is told."""
    estimate.observe(pixels=PIXELS, seconds=1.5)
    assert estimate.pixel_step * PIXELS == pytest.approx(0.6)
    learned = Estimate()
    learned.observe(pixels=PIXELS, seconds=1)
    for seconds in (1, 11):
        learned.observe_rest(pixels=PIXELS, seconds=seconds)
    assert learned.rest_steps == pytest.approx(2)


async def test_before_a_step_was_seen_its_time_is_guessed():
    """65 ms for a step of 512x512; the guess counts for nothing once a step was seen."""
    fresh = Estimate()
    assert fresh.pixel_step * PIXELS == pytest.approx(0.0655, rel=0.01)
    fresh.observe(pixels=PIXELS, seconds=100)
    assert fresh.pixel_step * PIXELS == pytest.approx(100)


async def test_steps_of_nothing_divide_by_nothing():
    """Neither a step without pixels nor one that took no time."""
    odd = Estimate()
    odd.observe(pixels=0, seconds=0.5)
    odd.observe_rest(pixels=0, seconds=0.5)
    assert odd.rest_steps == 1
    odd = Estimate()
    odd.observe(pixels=PIXELS, seconds=0)
    odd.observe_rest(pixels=PIXELS, seconds=1)
    assert odd.rest_steps == REST_STEPS


def test_work_for_a_slower_model_counts_for_more():
    """It is learned for each; one that was never seen counts as the default one."""
    estimate = Estimate()
    estimate.observe(pixels=PIXELS, seconds=1)
    estimate.observe(pixels=PIXELS, seconds=4, model="xl")
    assert (estimate.weight(""), estimate.weight("xl"), estimate.weight("new")) == (1, 4, 1)
    assert estimate.done == 5 * PIXELS
    request = GenerationSpec(prompt="", steps=10)
    usual = estimate.seconds([Job(request=request)])
    assert estimate.seconds([Job(request=request, model="xl")]) == pytest.approx(4 * usual)
    before = estimate.rest_steps
    estimate.observe_rest(pixels=PIXELS, seconds=4 * before, model="xl")
    assert estimate.rest_steps == pytest.approx(before)
