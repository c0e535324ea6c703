"""A supersampled drawing surface with local coordinates."""

# ruff: noqa: PLR0917 - a shape has that many measures

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

from .palette import Colour

Point = tuple[float, float]
SCALE = 2


@lru_cache(maxsize=4)
def _halo(power: float) -> Image.Image:
    """Radial fall-off mask, 96 pixels square."""
    axis = np.linspace(-1, 1, 96)
    radius = np.sqrt(axis[:, None] ** 2 + axis[None, :] ** 2)
    return Image.fromarray((255 * np.clip(1 - radius, 0, 1) ** power).astype(np.uint8))


class Canvas:
    """A picture under way; coordinates are supersampled pixels, y downwards."""

    def __init__(self, width: int, height: int) -> None:
        """Open a black canvas that will come out at width x height pixels."""
        self.out = (width, height)
        self.w, self.h = float(width * SCALE), float(height * SCALE)
        self.unit = min(self.w, self.h)
        self.image = Image.new("RGB", (width * SCALE, height * SCALE))
        self.pen = ImageDraw.Draw(self.image)

    def gradient(self, top: float, bottom: float, stops: Sequence[Colour]) -> None:
        """Fill the rows from top to bottom with a vertical gradient."""
        y0, y1 = max(0, int(top)), min(int(self.h), int(np.ceil(bottom)))
        if y1 <= y0:
            return
        at = np.linspace(0, len(stops) - 1, y1 - y0)
        rows = np.stack(
            [np.interp(at, range(len(stops)), [s[c] for s in stops]) for c in range(3)], 1
        )
        strip = Image.fromarray(rows.round().astype(np.uint8)[:, None, :])
        self.image.paste(strip.resize((int(self.w), y1 - y0), Image.Resampling.NEAREST), (0, y0))

    def polygon(self, points: Sequence[Point], colour: Colour) -> None:
        """Fill a polygon."""
        self.pen.polygon(list(points), fill=colour)

    def ellipse(self, x: float, y: float, rx: float, ry: float, colour: Colour) -> None:
        """Fill an ellipse around x, y."""
        self.pen.ellipse((x - rx, y - ry, x + rx, y + ry), fill=colour)

    def rectangle(
        self, x0: float, y0: float, x1: float, y1: float, colour: Colour, r: float = 0
    ) -> None:
        """Fill a rectangle with corners rounded by r."""
        box = (min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))
        self.pen.rounded_rectangle(box, radius=r, fill=colour)

    def line(self, points: Sequence[Point], colour: Colour, width: float) -> None:
        """Stroke a line of a width in canvas pixels."""
        self.pen.line(list(points), fill=colour, width=max(1, round(width)), joint="curve")

    def glow(self, x: float, y: float, radius: float, colour: Colour, strength: float) -> None:
        """Lay a soft light around x, y."""
        size = max(2, round(2 * radius))
        mask = (
            _halo(1.6).resize((size, size), Image.Resampling.BILINEAR).point(lambda v: v * strength)
        )
        self.image.paste(colour, (round(x - radius), round(y - radius)), mask)

    def finish(self) -> Image.Image:
        """Reduce to the size asked for."""
        return self.image.reduce(SCALE)


@dataclass(frozen=True)
class Local:
    """Local coordinates on a canvas: origin at the foot of a subject, y up, in units of size."""

    canvas: Canvas
    x: float
    y: float
    size: float
    flip: float
    """1, or -1 for a mirrored subject."""
    dark: bool
    """Whether windows are lit and mushrooms glow brightly."""

    def at(self, x: float, y: float) -> Point:
        """Canvas position of a local point."""
        return self.x + self.flip * x * self.size, self.y - y * self.size

    def poly(self, points: Sequence[Point], colour: Colour) -> None:
        """Fill a polygon of local points."""
        self.canvas.polygon([self.at(*p) for p in points], colour)

    def oval(self, x: float, y: float, rx: float, ry: float, colour: Colour) -> None:
        """Fill an ellipse."""
        cx, cy = self.at(x, y)
        self.canvas.ellipse(cx, cy, rx * self.size, ry * self.size, colour)

    def box(self, x0: float, y0: float, x1: float, y1: float, colour: Colour, r: float = 0) -> None:
        """Fill a rectangle with corners rounded by r."""
        self.canvas.rectangle(*self.at(x0, y0), *self.at(x1, y1), colour, r * self.size)

    def dome(self, x: float, y: float, rx: float, ry: float, colour: Colour) -> None:
        """Fill the upper half of an ellipse."""
        angles = np.linspace(0, np.pi, 25)
        self.poly([(x + rx * float(np.cos(a)), y + ry * float(np.sin(a))) for a in angles], colour)

    def line(self, points: Sequence[Point], colour: Colour, width: float) -> None:
        """Stroke a line of local points and local width."""
        self.canvas.line([self.at(*p) for p in points], colour, width * self.size)

    def glow(self, x: float, y: float, radius: float, colour: Colour, strength: float) -> None:
        """Lay a soft light."""
        self.canvas.glow(*self.at(x, y), radius * self.size, colour, strength)
