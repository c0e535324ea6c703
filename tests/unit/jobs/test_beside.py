import pytest

from service.diffusion.generation import GenerationRequest
from service.jobs.beside import SHORTER, slips_in
from service.jobs.job import Job
from service.jobs.work import REST_STEPS


def job(steps: int, *, done: int = 0, side: int = 256, images: int = 1) -> Job:
    """Return a job that did some of its steps."""
    request = GenerationRequest(
        prompt="a cat", steps=steps, width=side, height=side, num_images=images
    )
    return Job(request=request, steps_done=done)


OWN = 4 + REST_STEPS
LEAST = SHORTER * OWN - REST_STEPS
"""Steps that a running picture must have left."""


@pytest.mark.parametrize(
    ("running", "expected"),
    [
        ([job(LEAST), job(50)], True),
        ([job(50, done=50 - LEAST)], True),
        ([job(50, done=51 - LEAST), job(50)], False),
        ([job(50, images=2)], True),
        ([job(20, side=128)], False),
    ],
    ids=["just long enough", "begun", "one is nearly done", "several pictures", "smaller ones"],
)
def test_it_must_be_much_shorter_than_what_each_has_left(running, expected) -> None:
    """For less, the place that becomes free soon is worth waiting for."""
    assert slips_in(job(4), running) is expected


def test_one_picture() -> None:
    """A job of several would hold up the batch for longer than it seems."""
    assert not slips_in(job(1, images=2), [job(50)])
