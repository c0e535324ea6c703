"""How far pictures are from those that another setting makes of the same seeds."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from PIL import Image, ImageChops

LEVELS: Final = 256


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Over all values of all pictures, in grey levels of 255."""

    mean: float
    """Mean of the absolute differences."""
    largest: int
    psnr: float
    """Peak signal-to-noise ratio in dB; infinite where nothing differs."""


def difference(ours: Path, reference: Path) -> Difference | None:
    """Compare the pictures of two folders that have the same name; None where there are none."""
    counts = [0] * LEVELS
    for path in ours.glob("*.png"):
        other = reference / path.name
        if other.exists():
            for gap, count in enumerate(gaps(path, other)):
                counts[gap] += count
    total = sum(counts)
    if not total:
        return None
    squares = sum(gap**2 * count for gap, count in enumerate(counts)) / total
    return Difference(
        mean=sum(gap * count for gap, count in enumerate(counts)) / total,
        largest=max(gap for gap, count in enumerate(counts) if count),
        psnr=10 * math.log10((LEVELS - 1) ** 2 / squares) if squares else math.inf,
    )


def gaps(ours: Path, other: Path) -> list[int]:
    """Return how many values of two pictures differ by 0, 1, … 255."""
    with Image.open(ours) as one, Image.open(other) as two:
        bands = ImageChops.difference(one.convert("RGB"), two.convert("RGB")).histogram()
    return [sum(bands[gap::LEVELS]) for gap in range(LEVELS)]
