"""What the clients will ask for: the same orders for the same seed."""

import itertools
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

PROMPTS: Final = ("a cabin in the woods", "a lighthouse at dusk", "a robot in a garden")
SIZES: Final = ((256, 256), (256, 256), (256, 256), (320, 256), (256, 384))
"""Mostly small: what is tried here is who loses a job, not how fast it is."""

SYNCHRONOUS: Final = 0.2
WITH_WEBHOOK: Final = 0.3
CANCELLED: Final = 0.12
HURRIED: Final = 0.08
LONGEST_HURRY: Final = 4.0
LONGEST_DOUBT: Final = 3.0


@dataclass(frozen=True, kw_only=True)
class Order:
    """One picture that one client wants."""

    number: int
    key: str
    """The Idempotency-Key of every request for it."""
    body: Mapping[str, Any]
    synchronous: bool = False
    """Asked for with ``POST /generate``; the picture comes in the answer."""
    cancel_after: float | None = None
    """Seconds after its acceptance in which the client changes its mind."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.body["width"], self.body["height"]

    @property
    def picture(self) -> dict[str, Any]:
        """The part of the body that decides how the picture looks."""
        return {k: v for k, v in self.body.items() if k not in ("webhook", "timeout_seconds")}


def orders(seed: int, webhook: str) -> Iterator[Order]:
    """Yield orders without end; ``webhook`` is where those with one want to be told."""
    chance = random.Random(seed)  # noqa: S311 - repeatable, not secret
    for number in itertools.count():
        yield _order(chance, f"chaos-{seed}-{number}", number, webhook)


def _order(chance: random.Random, key: str, number: int, webhook: str) -> Order:
    width, height = chance.choice(SIZES)
    body: dict[str, Any] = {
        "prompt": chance.choice(PROMPTS),
        "width": width,
        "height": height,
        "steps": chance.randint(2, 8),
        "seed": chance.getrandbits(32),
    }
    # All are drawn for every order, so that one more kind of order leaves the others as they were.
    synchronous, told, cancelled, hurried = (chance.random() for _ in range(4))
    hurry, doubt = chance.uniform(0.3, LONGEST_HURRY), chance.uniform(0, LONGEST_DOUBT)
    if synchronous < SYNCHRONOUS:
        return Order(number=number, key=key, body=body, synchronous=True)
    if told < WITH_WEBHOOK:
        body["webhook"] = f"{webhook}{number}"
    if hurried < HURRIED:
        body["timeout_seconds"] = round(hurry, 3)
    return Order(
        number=number,
        key=key,
        body=body,
        cancel_after=doubt if cancelled < CANCELLED else None,
    )
