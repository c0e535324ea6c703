"""One client with one wish, and what became of it."""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

PROMPTS: Final = ("a cabin in the woods", "a lighthouse at dusk", "a robot in a garden")
SIZES: Final = ((256, 256), (256, 256), (320, 256), (384, 384))
STEPS: Final = (2, 4, 4, 8, 16)
DEADLINES: Final = (10.0, 40.0, 110.0)
"""Seconds; the shortest are sometimes missed under overload, as they shall be."""

SHARES: Final = {"flood": 0.75, "steady": 0.2, "light": 0.05}
"""Names of the keys and their parts of all that arrives."""

LEAST: Final = 1.0
"""Seconds below which no difference counts: Retry-After has whole seconds."""


@dataclass(kw_only=True)
class Visit:
    """Times are ``time.monotonic`` seconds."""

    key: str
    body: Mapping[str, Any]
    deadline: float
    refused: list[float] = field(default_factory=list)
    """When each refusal came."""
    told: list[float] = field(default_factory=list)
    """The Retry-After of each."""
    admitted: float | None = None
    """When the request that was not refused was sent."""
    answered: float | None = None
    status: int = 0
    code: str = ""
    flaw: str = ""
    """An answer that must not come."""
    left: bool = False
    """Whether it was told a time after the end of the drill, and did not wait for it."""

    @property
    def ratio(self) -> float | None:
        """Seconds until it was let in by those that it was told at first; None: never."""
        if not self.told or self.admitted is None:
            return None
        return max(self.admitted - self.refused[0], LEAST) / max(self.told[0], LEAST)

    def due(self, end: float) -> bool:
        """Whether the first time that it was told lies before ``end``."""
        return bool(self.told) and self.refused[0] + self.told[0] <= end

    @property
    def taken(self) -> float:
        """Seconds from the request that was not refused to its answer."""
        return (self.answered or 0.0) - (self.admitted or 0.0)


def visitor(chance: random.Random, number: int) -> Visit:
    """Return the next client; each has a request that nobody else sends."""
    width, height = chance.choice(SIZES)
    body = {
        "prompt": f"{chance.choice(PROMPTS)} no. {number}",
        "width": width,
        "height": height,
        "steps": chance.choice(STEPS),
        "seed": chance.getrandbits(32),
    }
    key = chance.choices(list(SHARES), weights=list(SHARES.values()))[0]
    return Visit(key=key, body=body, deadline=chance.choice(DEADLINES))
