"""Whether an image that came is the one that was asked for."""

import io
from typing import Final

from PIL import Image, ImageChops

MOST_DIFFERING: Final = 0.0002
"""Part of the values that may differ by one step of 255, for images that begin with noise.

A batch of another size rounds its sums in another order: 0.006 to 0.011 % are measured."""

MOST_DIFFERING_FROM_IMAGE: Final = 0.0005
"""The same for images that begin with an image.

The drills draw it from random colours, which no model has seen, and its steps enlarge the same
rounding more: 0.004 to 0.025 % are measured. With an image of the model itself it is as with
noise (0.005 to 0.010 %), and alone there is no difference: the encoding is never in a batch."""


def flaw(content: bytes, size: tuple[int, int], kind: str = "PNG") -> str:
    """Return what is wrong with an image; empty where it has that format and size."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            image.load()
    except OSError as error:
        return f"its image cannot be read: {error}"
    if image.format != kind or image.size != size:
        return f"its image is a {image.format} of {image.size}, not a {kind} of {size}"
    return ""


def difference(one: Image.Image, other: Image.Image, most_differing: float = MOST_DIFFERING) -> str:
    """Return how two images differ; empty where they are the same up to rounding."""
    if one.size != other.size:
        return f"{one.size} and {other.size}"
    counts = ImageChops.difference(one, other).histogram()
    steps = [sum(counts[value::256]) for value in range(256)]
    most = max((value for value, count in enumerate(steps) if count), default=0)
    part = sum(steps[1:]) / max(sum(steps), 1)
    if most > 1 or part > most_differing:
        return f"{part:.3%} of the values differ, by up to {most}"
    return ""
