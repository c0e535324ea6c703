"""How much memory images take, learned from those that were made."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from service.core.stage import Stage
from service.diffusion.memory.usage import Meter

FORGETTING: Final = 0.05
"""How fast a figure comes down to lower ones; it goes up at once."""

FADING: Final = 0.001
"""How fast figures of sizes fade that nobody asks for: to a third in a thousand measurements."""

MARGIN: Final = 1.1
"""What an estimate for a size that was never seen is raised by."""


@dataclass(kw_only=True)
class Line:
    """Bytes by pixels of one stage: what was seen, and a straight line through it.

    With attention that is computed in blocks (SDPA) memory grows with the pixels, not with
    their square.
    """

    seen: dict[int, float] = field(default_factory=dict)

    def learn(self, pixels: int, taken: float) -> None:
        """Correct the figure for so many pixels: upwards at once, downwards bit by bit.

        Those of other sizes fade too, so that an odd one does not rule for ever.
        """
        for other in self.seen.keys() - {pixels}:
            self.seen[other] *= 1 - FADING
        known = self.seen.get(pixels, 0.0)
        rate = 1.0 if taken > known else FORGETTING
        self.seen[pixels] = known + rate * (taken - known)

    def bytes(self, pixels: int) -> int | None:
        """Return what so many pixels take; None as long as nothing was seen."""
        if pixels in self.seen:
            return round(self.seen[pixels])
        if not self.seen:
            return None
        fixed, slope = self.fit()
        return round(MARGIN * (fixed + slope * pixels))

    def fit(self) -> tuple[float, float]:
        """Return bytes at no pixels and bytes per pixel, by least squares; neither negative."""
        count = len(self.seen)
        mean_x = sum(self.seen) / count
        mean_y = sum(self.seen.values()) / count
        spread = sum((x - mean_x) ** 2 for x in self.seen)
        common = sum((x - mean_x) * (y - mean_y) for x, y in self.seen.items())
        slope = common / spread if spread else 0.0
        fixed = mean_y - slope * mean_x
        if slope <= 0 or fixed < 0:
            # One size only, or figures with more noise than slope: through the origin. An
            # estimate that is too low costs a recovery, one too high a refusal.
            squares = sum(x * x for x in self.seen)
            return 0.0, sum(x * y for x, y in self.seen.items()) / max(squares, 1)
        return fixed, slope


class MemoryModel:
    """Estimates what a stage takes, in bytes beyond the weights.

    Pixels are those of all images of a call; for denoising each counts once for every
    row it has in the UNet's batch, which are two under guidance.
    """

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._lines: dict[Stage, Line] = {}

    @contextmanager
    def measuring(self, stage: Stage, pixels: int, *, counts: bool = True) -> Iterator[None]:
        """Learn from the work done within this, unless it fails or ``counts`` for nothing."""
        self._meter.begin()
        yield
        taken = self._meter.taken() if counts else None
        if taken is not None:
            self._lines.setdefault(stage, Line()).learn(pixels, taken)

    def forget(self) -> None:
        """Begin anew: what the first image of a process takes is not what images take."""
        self._lines.clear()

    def bytes(self, stage: Stage, pixels: int) -> int | None:
        """Return what a stage takes for so many pixels; None as long as nothing was seen."""
        line = self._lines.get(stage)
        return line.bytes(pixels) if line else None

    @property
    def seen(self) -> Mapping[Stage, Mapping[int, float]]:
        """Bytes by pixels, by stage, of what was made."""
        return {stage: line.seen for stage, line in self._lines.items()}

    @property
    def fits(self) -> Mapping[Stage, tuple[float, float]]:
        """Bytes at no pixels and bytes per pixel, by stage."""
        return {stage: line.fit() for stage, line in self._lines.items()}
