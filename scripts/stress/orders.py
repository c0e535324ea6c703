"""What the clients ask for: requests as mixed as those of many people, the same in every run."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from service.config import MOST_STEPS, SAMPLERS

SIZES: Final = (
    *((256, 256), (320, 256), (256, 384), (384, 384), (448, 320)),
    *((512, 256), (512, 384), (384, 512), (512, 512)),
)
WORDS: Final = (
    *("red", "green", "old", "boat", "cabin", "robot", "mountain", "lake"),
    *("forest", "snow", "dusk", "window", "flowers", "river", "night", "tower"),
)
LONGEST_PROMPT: Final = 40
"""In words; prompts differ in length as those of people do."""

IMAGES: Final = (1, 1, 1, 1, 1, 1, 1, 2, 2, 3)
LONG: Final = 6
"""How many times the steps of an order take that is to be broken off in the midst of them."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """One request for pictures: what goes into its body."""

    body: dict[str, Any]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of its pictures."""
        return self.body["width"], self.body["height"]

    def single(self) -> "Order":
        """Return the same order for one picture: PNG answers hold no more."""
        return Order(body={**self.body, "num_images": 1})

    def long(self) -> "Order":
        """Return the same order with so many steps that there is time to break it off."""
        most = MOST_STEPS.get(self.body["sampler"], 50)
        return Order(body={**self.body, "steps": min(self.body["steps"] * LONG, most)})

    def quick(self) -> "Order":
        """Return the same order with a single step, so that decoding takes most of its time."""
        return Order(body={**self.body, "steps": 1})


def orders(seed: int, sizes: Sequence[tuple[int, int]], most_steps: int) -> Iterator[Order]:
    """Yield orders for ever; sizes and samplers come equally often, in no order."""
    chance = random.Random(seed)  # noqa: S311 - a sequence to repeat, not a secret
    bag: list[tuple[int, int]] = []
    samplers: list[str] = []
    while True:
        bag = bag or chance.sample(list(sizes), len(sizes))
        samplers = samplers or chance.sample(SAMPLERS, len(SAMPLERS))
        width, height = bag.pop()
        prompt = " ".join(chance.choices(WORDS, k=chance.randint(2, LONGEST_PROMPT)))
        body = {
            "prompt": prompt,
            "width": width,
            "height": height,
            "steps": chance.randint(1, most_steps),
            "sampler": samplers.pop(),
            "num_images": chance.choice(IMAGES),
            "seed": chance.randrange(2**32),
        }
        if chance.random() < 0.5:  # noqa: PLR2004 - every other one
            body["negative_prompt"] = chance.choice(WORDS)
        yield Order(body=body)
