"""Sizes that a model cannot draw become the nearest that it can."""

import pytest

from service.config.limits import limits_of
from service.config.table import Config
from service.core.limits import MULTIPLE, fitted

LIMITS = limits_of(Config())


@pytest.mark.parametrize(
    ("width", "height", "found"),
    [
        (512, 512, (512, 512)),
        (256, 768, (256, 768)),
        (1024, 1024, (768, 768)),
        (1792, 1024, (768, 448)),
        (1024, 1536, (512, 768)),
        (500, 500, (512, 512)),
        (480, 544, (512, 576)),
        (64, 64, (256, 256)),
        (128, 256, (256, 512)),
        (1, 10_000, (256, 768)),
        (128, 768, (256, 768)),
    ],
)
def test_the_shape_stays_as_far_as_it_can(width, height, found):
    """Both sides change together; beyond the limits the shape gives way."""
    assert fitted(width, height, LIMITS.min_size, LIMITS.max_size) == found


def test_every_size_becomes_a_possible_one():
    """Whatever is asked for, the model can draw it; what it can draw stays as it is."""
    sides = [1, 63, 64, 200, 256, 300, 511, 512, 700, 768, 769, 1000, 4096, 10**8]
    for width, height in ((width, height) for width in sides for height in sides):
        found = fitted(width, height, LIMITS.min_size, LIMITS.max_size)
        assert all(
            LIMITS.min_size <= side <= LIMITS.max_size and side % MULTIPLE == 0 for side in found
        )
        assert fitted(found[0], found[1], LIMITS.min_size, LIMITS.max_size) == found
        assert (found[0] > found[1]) <= (width > height)
