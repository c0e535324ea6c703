"""What clients of drills ask for, drawn from random numbers that a seed repeats."""

import random
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, TypeVar

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


def shuffled(values: Iterable[Value], chance: random.Random) -> Iterator[Value]:
    """Yield all again and again, equally often, each time in another order."""
    known = list(values)
    while True:
        yield from chance.sample(known, len(known))
