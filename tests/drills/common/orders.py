"""What clients of drills ask for, drawn from random numbers that a seed repeats."""

import base64
import io
import random
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, TypeVar

from PIL import Image, ImageDraw

Value = TypeVar("Value")

PROMPTS: Final = ("a cabin in the woods", "a lighthouse at dusk", "a robot in a garden")
Sizes = Sequence[tuple[int, int]]


def drawn(chance: random.Random, sizes: Sizes, steps: Sequence[int]) -> dict[str, Any]:
    """Return the body of a request for one image."""
    width, height = chance.choice(sizes)
    return {
        "prompt": chance.choice(PROMPTS),
        "width": width,
        "height": height,
        "steps": chance.choice(steps),
        "seed": chance.getrandbits(32),
    }


def with_image(body: dict[str, Any], chance: random.Random, *, masked: bool) -> dict[str, Any]:
    """Return the body of a request that begins with an image, and of one with a mask."""
    width, height = body["width"], body["height"]
    colours = bytes(chance.randbytes(48))
    image = Image.frombytes("RGB", (4, 4), colours).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    started = {**body, "image": _base64(image), "strength": 0.6}
    if not masked:
        return started
    mask = Image.new("L", (width, height))
    ImageDraw.Draw(mask).rectangle((0, 0, width // 2, height // 2), fill=255)
    return {**started, "mask": _base64(mask)}


def _base64(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def shuffled(values: Iterable[Value], chance: random.Random) -> Iterator[Value]:
    """Yield all again and again, equally often, each time in another order."""
    known = list(values)
    while True:
        yield from chance.sample(known, len(known))
