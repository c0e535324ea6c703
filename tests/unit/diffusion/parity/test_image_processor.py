"""Sizes, masks, regions and pasting as diffusers' ``VaeImageProcessor`` has them."""

import random
from collections.abc import Iterator

import pytest
from diffusers.image_processor import VaeImageProcessor
from PIL import Image

from service.images.canvas import canvas_of, crop_region, resized
from service.images.inputs import prepared
from service.images.paste import pasting
from tests.unit.images.files import gradient, saved
from tests.unit.images.test_inputs import masked, opened, painted, raw

MODES = {"stretch": "default", "crop": "crop", "fill": "fill"}
PROCESSOR = VaeImageProcessor()


def shapes(count: int) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Yield sizes of an image, and those to draw it in."""
    chance = random.Random(7)  # noqa: S311 - sizes, not secrets
    for _ in range(count):
        image = (chance.randint(20, 900), chance.randint(20, 900))
        yield image, (chance.randrange(64, 513, 64), chance.randrange(64, 513, 64))


def differences(one: Image.Image, other: Image.Image) -> list[int]:
    """Return the difference of each value of two images of one size."""
    assert (one.size, one.mode) == (other.size, other.mode)
    return [abs(a - b) for a, b in zip(one.tobytes(), other.tobytes(), strict=True)]


@pytest.mark.parametrize("mode", MODES)
def test_sizes_are_those_of_diffusers(mode: str):
    """Byte for byte, of images and of masks."""
    for image, size in shapes(12):
        drawn = gradient(image)
        expected = PROCESSOR.resize(drawn, size[1], size[0], resize_mode=MODES[mode])

        assert resized(drawn, size, mode).tobytes() == expected.tobytes()
        grey = drawn.convert("L")
        expected = PROCESSOR.resize(grey, size[1], size[0], resize_mode=MODES[mode])
        assert resized(grey, size, mode).tobytes() == expected.convert("L").tobytes()


def test_what_is_cut_off_makes_no_difference(monkeypatch: pytest.MonkeyPatch):
    """An image that is thousands of times as long as wide is not enlarged as a whole."""
    monkeypatch.setattr("service.images.canvas.MOST_BETWEEN", 0)
    for image, size in shapes(12):
        drawn = gradient(image)
        expected = PROCESSOR.resize(drawn, size[1], size[0], resize_mode="crop")

        apart = differences(resized(drawn, size, "crop"), expected)
        assert max(apart) <= 2
        assert sum(each > 1 for each in apart) <= len(apart) / 1000


def test_regions_are_those_of_diffusers():
    """For masks anywhere, paddings, and shapes to draw them in."""
    chance = random.Random(11)  # noqa: S311 - as above
    for image, size in shapes(60):
        left, top = chance.randrange(image[0]), chance.randrange(image[1])
        box = (left, top, chance.randint(left, image[0]), chance.randint(top, image[1]))
        mask, padding = painted(image, box), chance.choice((0, 1, 32, 200))

        expected = PROCESSOR.get_crop_region(mask, *size, pad=padding)

        assert crop_region(mask, size, padding) == expected


@pytest.mark.parametrize("blur", [0, 4, 33])
def test_a_blurred_mask_is_that_of_diffusers(blur: int):
    """``VaeImageProcessor.blur``, before the mask gets its size."""
    image, mask = gradient((300, 200)), painted((300, 200), (40, 50, 200, 120))
    spec = masked(saved(image), image.size, mask_blur=blur)

    found = canvas_of(saved(image), saved(mask), spec).mask

    assert found is not None
    assert found.tobytes() == PROCESSOR.blur(mask, blur).tobytes()


def test_a_part_is_prepared_and_pasted_as_diffusers_does():
    """``padding_mask_crop`` of the inpainting pipelines: region, fill, overlay."""
    chance = random.Random(3)  # noqa: S311 - as above
    for shape, size in shapes(8):
        image = gradient(shape)
        left, top = (chance.randrange(side // 2) for side in shape)
        box = (left, top, left + shape[0] // 3, top + shape[1] // 3)
        mask = painted(shape, box)
        spec = masked(
            saved(image), shape, width=size[0], height=size[1], mask_padding=16, mask_blur=6
        )
        blurred = PROCESSOR.blur(mask, 6)
        region = PROCESSOR.get_crop_region(blurred, *size, pad=16)
        resize = {"height": size[1], "width": size[0], "resize_mode": "fill"}
        drawn = gradient(size).transpose(Image.Transpose.ROTATE_180)

        found = prepared(saved(image), saved(mask), spec)
        result = opened(pasting(saved(image), saved(mask), spec)(raw(drawn)))

        assert found.image == PROCESSOR.resize(image.crop(region), **resize).tobytes()
        small = PROCESSOR.resize(blurred.crop(region), **resize).convert("L")
        assert found.mask == small.tobytes()
        expected = PROCESSOR.apply_overlay(blurred, image, drawn, region)
        assert result.tobytes() == expected.tobytes()


def test_the_whole_is_pasted_as_diffusers_does():
    """``apply_overlay`` without a region."""
    image, mask = gradient((128, 64)), painted((128, 64), (20, 10, 70, 40))
    spec = masked(saved(image), image.size, width=128, height=64)
    drawn = gradient((128, 64)).transpose(Image.Transpose.ROTATE_180)

    result = opened(pasting(saved(image), saved(mask), spec)(raw(drawn)))

    expected = PROCESSOR.apply_overlay(PROCESSOR.blur(mask, 4), image, drawn)
    assert result.tobytes() == expected.tobytes()
