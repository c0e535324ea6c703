"""How far images are from those that another setting makes of the same seeds."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from PIL import Image, ImageChops, ImageDraw

from service.cli.output import replacing

File = Path | IO[bytes]

LEVELS: Final = 256
CELL: Final = 256
LABEL: Final = 16
COLUMNS: Final = 4
"""Of a sheet of images, in pixels and cells."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Over all values of all images, in grey levels of 255."""

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
    """Compare the images of two folders that have the same name; None where there are none."""
    names = [path.name for path in ours.glob("*.png") if (reference / path.name).exists()]
    return compared([(ours / name, reference / name) for name in names]) if names else None


def compared(pairs: Iterable[tuple[File, File]]) -> Difference:
    """Compare images two by two, by how many of their values differ by 0, 1, … 255."""
    counts = [0] * LEVELS
    for ours, theirs in pairs:
        with Image.open(ours) as one, Image.open(theirs) as two:
            bands = ImageChops.difference(one.convert("RGB"), two.convert("RGB")).histogram()
        counts = [count + sum(bands[gap::LEVELS]) for gap, count in enumerate(counts)]
    total = sum(counts)
    squares = sum(gap**2 * count for gap, count in enumerate(counts)) / total
    return Difference(
        mean=sum(gap * count for gap, count in enumerate(counts)) / total,
        largest=max(gap for gap, count in enumerate(counts) if count),
        within_one=sum(counts[:2]) / total,
        psnr=10 * math.log10((LEVELS - 1) ** 2 / squares) if squares else math.inf,
    )


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
