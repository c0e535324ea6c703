"""How much work a request is."""

import pytest

from service.diffusion.generation import GenerationRequest
from service.jobs.work import REST_STEPS, work

PIXELS = 512 * 512


@pytest.mark.parametrize(
    ("fields", "steps"),
    [({}, 20), ({"sampler": "heun"}, 40), ({"num_images": 2}, 20), ({"steps": 1}, 1)],
)
def test_work_is_pixels_times_evaluations_and_the_rest(fields, steps):
    """Every picture pays for its evaluations and for what comes after them."""
    images = fields.get("num_images", 1)
    request = GenerationRequest(prompt="a cat", **fields)
    assert work(request) == images * PIXELS * (steps + REST_STEPS)


def test_steps_already_done_are_not_counted():
    """A job that did half its steps needs the other half and the rest."""
    request = GenerationRequest(prompt="a cat", steps=20)
    assert work(request, steps_done=10) == PIXELS * (10 + REST_STEPS)
