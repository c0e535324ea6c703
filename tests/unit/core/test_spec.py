import pickle
from dataclasses import replace

import pytest

from service.core.events import JobFinished, Stepped
from service.core.image import RawImage
from service.core.inputs import Hires, InputImage, Pad
from service.core.spec import GenerationSpec

IMAGE = InputImage(digest="0" * 64, width=640, height=400)
REQUEST = GenerationSpec(prompt="a cat", width=512, height=256, steps=20, num_images=3)


def test_seeds_follow_each_other() -> None:
    """Each image has the seed after the one before it."""
    assert REQUEST.seeds == (0, 1, 2)


def test_seeds_start_again_at_0() -> None:
    """After the largest seed comes 0, so every seed can be asked for on its own."""
    last = 2**32 - 1

    assert GenerationSpec(prompt="a cat", seed=last, num_images=2).seeds == (last, 0)


def test_variations_share_a_seed() -> None:
    """And each has the next subseed, as AUTOMATIC1111 has it."""
    varied = replace(REQUEST, seed=5, subseed=2**32 - 1, subseed_strength=0.1)
    assert (varied.seeds, varied.subseeds) == ((5, 5, 5), (2**32 - 1, 0, 1))


@pytest.mark.parametrize(
    ("steps", "strength", "left"),
    [(20, 0.8, 16), (20, 1.0, 20), (50, 0.3, 15), (3, 0.34, 1), (20, 0.0, 0), (10, 0.29, 2)],
)
def test_an_image_leaves_the_steps_that_diffusers_counts(steps, strength, left) -> None:
    """``int(steps * strength)``, in both kinds of passes that begin with an image."""
    drawn = replace(REQUEST, steps=steps, strength=strength, image=IMAGE)
    assert (drawn.first_steps, drawn.total_steps) == (left, left)
    twice = replace(REQUEST, steps=steps, hires=Hires(scale=2, strength=strength))
    assert (twice.hires_steps, twice.total_steps) == (left, steps + left)


def test_a_second_pass_has_steps_of_its_own() -> None:
    """They are counted before its strength."""
    twice = replace(REQUEST, hires=Hires(scale=2, steps=30, strength=0.5))
    assert twice.hires_steps == 15


@pytest.mark.parametrize(
    ("hires", "size"),
    [
        (Hires(scale=2), (1024, 512)),
        (Hires(scale=1.1), (560, 280)),
        (Hires(width=768, height=776), (768, 776)),
    ],
)
def test_a_second_pass_decides_what_is_drawn(hires, size) -> None:
    """In multiples of 8, rounded down as AUTOMATIC1111 does."""
    twice = replace(REQUEST, hires=hires)
    assert twice.drawn_size == twice.output_size == size
    assert twice.largest_pixels == size[0] * size[1]


def test_a_part_that_is_drawn_goes_back_into_the_image() -> None:
    """Then the result has the size of the image and of what is added to it."""
    part = replace(REQUEST, image=IMAGE, mask=IMAGE, mask_padding=32, pad=Pad(left=8, bottom=16))
    assert (part.drawn_size, part.output_size) == ((512, 256), (648, 416))
    assert replace(part, mask_padding=-1).output_size == (512, 256)


def test_values_cross_a_process_boundary() -> None:
    """What goes in and what comes out can be sent to another process."""
    image = RawImage(width=1, height=1, pixels=b"\x00\x01\x02", seed=3)
    for value in (
        REQUEST,
        Stepped(progress={"a": 1}, batch_size=1, pixels=1, seconds=0.5),
        JobFinished(job_id="a", epoch=1, images=(image,)),
    ):
        assert pickle.loads(pickle.dumps(value)) == value  # noqa: S301 - written a moment ago


def test_enlarged_latents_with_too_weak_a_second_pass_are_doubted() -> None:
    """Their blur is left; a decoded image has none."""
    weak = Hires(scale=2, strength=0.4)
    (said,) = replace(REQUEST, hires=weak).doubts
    assert 'set strength to 0.5 or more, or resize to "lanczos"' in said
    for other in (None, replace(weak, strength=0.5), replace(weak, resize="lanczos")):
        assert replace(REQUEST, hires=other).doubts == ()
