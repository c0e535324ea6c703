from dataclasses import replace

import pytest

from service.core.spec import GenerationSpec
from service.core.work import REST_STEPS
from service.jobs.dispatch.bypass import SHORTER, may_bypass
from service.jobs.job import Job


def job(steps: int, *, done: int = 0, side: int = 256, images: int = 1) -> Job:
    """Return a job that did some of its steps."""
    request = GenerationSpec(
        prompt="a cat", steps=steps, width=side, height=side, num_images=images
    )
    return Job(request=request, steps_done=done)


OWN = 4 + REST_STEPS
LEAST = SHORTER * OWN - REST_STEPS
"""Steps that a running image must have left."""


@pytest.mark.parametrize(
    ("running", "expected"),
    [
        ([job(LEAST), job(50)], True),
        ([job(50, done=50 - LEAST)], True),
        ([job(50, done=51 - LEAST), job(50)], False),
        ([job(50, images=2)], True),
        ([job(20, side=128)], False),
    ],
    ids=["just long enough", "begun", "one is nearly done", "several images", "smaller ones"],
)
def test_it_must_be_much_shorter_than_what_each_has_left(running, expected) -> None:
    """For less, the place that becomes free soon is worth waiting for."""
    assert may_bypass(job(4), running) is expected


def test_one_image() -> None:
    """A job of several would hold up the batch for longer than it seems."""
    assert not may_bypass(job(1, images=2), [job(50)])


@pytest.mark.parametrize(
    ("left", "images", "expected"), [(11, 1, True), (10, 1, False), (11, 2, True), (10, 2, False)]
)
def test_a_job_of_four_steps_slips_in_beside_eleven(left, images, expected) -> None:
    """Twice its 4 steps and the 3 of its decoding; each image of a running job for itself."""
    assert may_bypass(job(4), [job(left, images=images)]) is expected


def test_sub_prompts() -> None:
    """An image that takes the rows of two does not join a full batch."""
    composed = replace(job(1).request, prompt="a AND b", prompt_syntax="a1111")

    assert not may_bypass(Job(request=composed), [job(50)])
