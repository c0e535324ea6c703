"""How much work a request is."""

import math
from dataclasses import replace

import pytest

from service.core.inputs import Hires, InputImage
from service.core.spec import GenerationSpec
from service.core.work import ENCODE_STEPS, REST_STEPS, charged, image_places, pixels, places, work

PIXELS = 512 * 512


@pytest.mark.parametrize(
    ("fields", "steps"),
    [({}, 20), ({"sampler": "heun"}, 40), ({"num_images": 2}, 20), ({"steps": 1}, 1)],
)
def test_work_is_pixels_times_evaluations_and_the_rest(fields, steps):
    """Every image pays for its evaluations and for what comes after them."""
    images = fields.get("num_images", 1)
    request = GenerationSpec(prompt="a cat", **fields)
    assert work(request) == images * PIXELS * (steps + REST_STEPS)


def test_steps_already_done_are_not_counted():
    """A job that did half its steps needs the other half and the rest."""
    request = GenerationSpec(prompt="a cat", steps=20)
    assert work(request, steps_done=10) == PIXELS * (10 + REST_STEPS)


def test_work_in_numbers():
    """Pixels times evaluations, three more for the decoding; never less than that."""
    request = GenerationSpec(prompt="", steps=20, width=256, height=512, num_images=2)
    assert work(request) == 2 * 256 * 512 * 23
    assert work(request, steps_done=19) == 2 * 256 * 512 * 4
    assert work(request, steps_done=25) == 2 * 256 * 512 * 3


@pytest.mark.parametrize(
    ("prompt", "syntax", "expected"),
    [
        ("a cat AND a dog", "plain", 1),
        ("a cat", "a1111", 1),
        ("a cat AND a dog", "a1111", 1.5),
        ("a AND b AND c", "a1111", 2),
        ("a AND b AND c AND d", "a1111", 2.5),
    ],
)
def test_sub_prompts_take_places(prompt, syntax, expected):
    """An image counts as those that take as many rows: one for each prompt and one for none."""
    request = GenerationSpec(prompt=prompt, prompt_syntax=syntax, num_images=3)
    assert image_places(request) == expected
    assert places(request) == 3 * expected
    assert pixels(request) == 3 * expected * PIXELS
    assert charged(request) == math.ceil(3 * expected)


def test_an_image_needs_fewer_steps():
    """The part of the schedule that its strength leaves."""
    image = InputImage(digest="0" * 64, width=512, height=512)
    request = GenerationSpec(prompt="a cat", steps=20, strength=0.5, image=image)
    assert work(request) == PIXELS * (10 + REST_STEPS)
    assert charged(request) == 1


def test_two_passes_count_by_their_pixels():
    """The first has a quarter of the pixels of the second."""
    request = GenerationSpec(prompt="a cat", steps=20, hires=Hires(scale=2, strength=0.5))
    assert work(request) == 4 * PIXELS * (5 + 10 + REST_STEPS)
    assert work(request, steps_done=20) == 4 * PIXELS * (10 + REST_STEPS)
    assert work(request, steps_done=24) == 4 * PIXELS * (6 + REST_STEPS)
    assert work(request, steps_done=30) == 4 * PIXELS * REST_STEPS
    assert charged(request) == 3
    lanczos = replace(request, hires=Hires(scale=2, strength=0.5, resize="lanczos"))
    decoded = 1  # A quarter of the pixels: of three steps, one at most.
    assert work(lanczos) == work(request) + 4 * PIXELS * (decoded + ENCODE_STEPS)
    assert work(lanczos, steps_done=24) == work(request, steps_done=24)
