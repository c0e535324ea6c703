"""How long an engine may be silent before it is taken for dead."""

from collections.abc import Iterable
from typing import Final

TIMES: Final = 10
"""A step that takes so many times its usual time does not come back."""

FLOOR_SECONDS: Final = 20.0
"""Text encoding, decoding and the first step of a new process are no usual steps."""

LEARNING_RATE: Final = 0.2

Size = tuple[int, int]
"""Width and height in pixels."""


class Heartbeat:
    """The usual time of a step of each size, learned from the steps that were done."""

    def __init__(self, most: float) -> None:
        self._most = most
        """What is allowed where nothing was learned yet, and never exceeded."""
        self._usual: dict[int, float] = {}

    def observe(self, *, pixels: int, seconds: float) -> None:
        """Learn from one step of pictures of so many pixels each."""
        known = self._usual.get(pixels, seconds)
        self._usual[pixels] = known + LEARNING_RATE * (seconds - known)

    def limit(self, sizes: Iterable[Size]) -> float:
        """Return how many seconds of silence are too many with pictures of ``sizes`` in work.

        The slowest of them counts, as it may be the one that runs.
        """
        usual = [self._usual.get(width * height) for width, height in sizes]
        known = [seconds for seconds in usual if seconds is not None]
        if len(known) < len(usual) or not known:
            return self._most
        return min(self._most, max(FLOOR_SECONDS, TIMES * max(known)))
