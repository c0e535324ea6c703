"""How far pictures are from those that another setting makes of the same seeds."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from PIL import Image, ImageChops, ImageDraw

from service.cli_generate import replacing

LEVELS: Final = 256
CELL: Final = 256
LABEL: Final = 16
COLUMNS: Final = 4
"""Of a sheet of images, in pixels and cells."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Over all values of all pictures, in grey levels of 255."""

    mean: float
    """Mean of the absolute differences."""
    largest: int
    psnr: float
    """Peak signal-to-noise ratio in dB; infinite where nothing differs."""
    within_one: float = 1.0
    """Share of the values that differ by 1 at most."""

    @property
    def share(self) -> str:
        """The share within 1 in percent, rounded down: 100 % are all of them."""
        return f"{math.floor(self.within_one * 100_000) / 1000:g} %"


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
        within_one=sum(counts[:2]) / total,
        psnr=10 * math.log10((LEVELS - 1) ** 2 / squares) if squares else math.inf,
    )


def gaps(ours: Path, other: Path) -> list[int]:
    """Return how many values of two pictures differ by 0, 1, … 255."""
    with Image.open(ours) as one, Image.open(other) as two:
        bands = ImageChops.difference(one.convert("RGB"), two.convert("RGB")).histogram()
    return [sum(bands[gap::LEVELS]) for gap in range(LEVELS)]


def sheet(folder: Path, target: Path) -> None:
    """Show the first image of each folder in one file, each under its folder's name."""
    shown = [path for each in sorted(folder.glob("*/")) for path in sorted(each.glob("*.png"))[:1]]
    if not shown:
        return
    lines = -(-len(shown) // COLUMNS)
    whole = Image.new("RGB", (COLUMNS * CELL, lines * (CELL + LABEL)), "white")
    for number, path in enumerate(shown):
        left, top = number % COLUMNS * CELL, number // COLUMNS * (CELL + LABEL)
        ImageDraw.Draw(whole).text((left + 2, top + 2), path.parent.name, fill="black")
        with Image.open(path) as image:
            image.thumbnail((CELL, CELL))
            whole.paste(image, (left, top + LABEL))
    with replacing(target) as file:
        whole.save(file, "PNG")
