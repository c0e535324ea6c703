"""Sizes of images that are enlarged without a model."""

import pytest
from PIL import Image

from service.images.upscaling import Target, upscaled


@pytest.mark.parametrize(
    ("target", "size"),
    [
        (Target(scale=2), (200, 120)),
        (Target(scale=1.3), (128, 72)),
        (Target(scale=0.01), (8, 8)),
        (Target(width=150, height=150), (150, 150)),
        (Target(width=150, height=150, crop=False), (248, 144)),
    ],
)
def test_the_size_is_as_asked(target, size):
    """A factor gives multiples of 8; without a crop the image covers the size."""
    assert target.size(100, 60) == size
    assert upscaled(Image.new("RGB", (100, 60)), target).size == size
