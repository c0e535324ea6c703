"""Colours, the five lights of day, and a supersampled drawing surface."""

# ruff: noqa: PLR0917 - a shape has that many measures

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from functools import lru_cache
from typing import Self

import numpy as np
from PIL import Image, ImageColor, ImageDraw

Colour = tuple[int, ...]
"""Red, green and blue, 0 to 255."""

Point = tuple[float, float]
SCALE = 2
WHITE: Colour = (255, 255, 255)
COLOURS: dict[str, Colour] = {
    "red": (222, 38, 44),
    "orange": (250, 134, 20),
    "yellow": (255, 216, 40),
    "green": (52, 176, 72),
    "blue": (36, 96, 228),
    "purple": (138, 52, 200),
    "pink": (255, 122, 184),
    "white": (250, 250, 248),
    "black": (34, 34, 42),
    "brown": (126, 76, 40),
}


def mix(a: Colour, b: Colour, share: float) -> Colour:
    """Blend two colours, share 0 giving the first and 1 the second."""
    return tuple(round(x + (y - x) * share) for x, y in zip(a, b, strict=True))


def darker(colour: Colour, share: float = 0.3) -> Colour:
    """Shade a colour towards a deep blue-violet."""
    return mix(colour, (20, 12, 40), share)


def lighter(colour: Colour, share: float = 0.35) -> Colour:
    """Tint a colour towards warm white."""
    return mix(colour, (255, 250, 240), share)


@dataclass(frozen=True)
class Light:
    """The sky, from the zenith down, and the ambient colour of one time of day."""

    time: str
    ambient: tuple[float, float, float]
    sky: tuple[Colour, ...]
    water: tuple[Colour, Colour]
    haze: Colour
    disc: Colour

    @property
    def dark(self) -> bool:
        """Whether windows are lit and mushrooms glow brightly."""
        return self.time in {"night", "storm", "dawn"}

    @classmethod
    def of(cls, time: str, ambient: tuple[float, float, float], colours: str) -> Self:
        """Read seven colours: zenith, middle, low, far and near water, haze, sun or moon."""
        high, middle, low, far, near, haze, disc = map(ImageColor.getrgb, colours.split())
        return cls(time, ambient, (high, middle, low), (far, near), haze, disc)


_ALL = (
    Light.of(
        "sunset", (0.94, 0.66, 0.6), "#562a7c #f05c4e #ffc45c #faa05c #7a3874 #ee7c5c #fff0aa"
    ),
    Light.of("night", (0.4, 0.48, 0.76), "#080c2c #161e58 #3e4292 #343e8c #0e1642 #2c3474 #faf6da"),
    Light.of("day", (1.0, 1.0, 1.0), "#2c82e6 #74bef8 #d6f0fc #60c0e8 #1c70be #b2d6f0 #ffe860"),
    Light.of("dawn", (0.92, 0.78, 0.9), "#9686d8 #f4aace #ffe4d0 #f6c4d6 #8c7cc4 #ecbed8 #fffaec"),
    Light.of("storm", (0.52, 0.6, 0.56), "#283236 #50605e #869488 #687c78 #28383c #64746e #f6fae2"),
)
LIGHTS = {light.time: light for light in _ALL}


@lru_cache(maxsize=4)
def _halo(power: float) -> Image.Image:
    """Radial fall-off mask, 96 pixels square."""
    axis = np.linspace(-1, 1, 96)
    radius = np.sqrt(axis[:, None] ** 2 + axis[None, :] ** 2)
    return Image.fromarray((255 * np.clip(1 - radius, 0, 1) ** power).astype(np.uint8))


class Canvas:
    """An image under way; coordinates are supersampled pixels, y downwards, or local ones."""

    def __init__(self, width: int, height: int, light: Light) -> None:
        """Open a black canvas that will come out at width x height pixels."""
        self.w, self.h = float(width * SCALE), float(height * SCALE)
        self.unit = min(self.w, self.h)
        self.light = light
        self.image = Image.new("RGB", (width * SCALE, height * SCALE))
        self.pen = ImageDraw.Draw(self.image)
        self.origin, self.across, self.down = (0.0, 0.0), 1.0, 1.0

    def local(self, x: float, y: float, across: float, down: float) -> Self:
        """Return this canvas with its origin at x, y and other units; negative ones mirror."""
        inner = copy(self)
        inner.origin, inner.across, inner.down = (x, y), across, down
        return inner

    def lit(self, colour: Colour, depth: float = 0.0) -> Colour:
        """Colour under the light, faded into haze by depth 0 (near) to 1 (far)."""
        ambient = tuple(round(c * a) for c, a in zip(colour, self.light.ambient, strict=True))
        return mix(ambient, self.light.haze, depth)

    def at(self, x: float, y: float) -> Point:
        """Supersampled pixel of a point."""
        return self.origin[0] + x * self.across, self.origin[1] + y * self.down

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

    def poly(self, points: Sequence[Point], colour: Colour) -> None:
        """Fill a polygon."""
        self.pen.polygon([self.at(*point) for point in points], fill=colour)

    def oval(self, x: float, y: float, rx: float, ry: float, colour: Colour) -> None:
        """Fill an ellipse around x, y."""
        (x, y), rx, ry = self.at(x, y), rx * abs(self.across), ry * abs(self.down)
        self.pen.ellipse((x - rx, y - ry, x + rx, y + ry), fill=colour)

    def box(self, x0: float, y0: float, x1: float, y1: float, colour: Colour, r: float = 0) -> None:
        """Fill a rectangle with corners rounded by r."""
        (x0, y0), (x1, y1) = self.at(x0, y0), self.at(x1, y1)
        box = (min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))
        self.pen.rounded_rectangle(box, radius=r * abs(self.across), fill=colour)

    def dome(self, x: float, y: float, rx: float, ry: float, colour: Colour) -> None:
        """Fill the upper half of an ellipse in local coordinates."""
        angles = np.linspace(0, np.pi, 25)
        self.poly([(x + rx * float(np.cos(a)), y + ry * float(np.sin(a))) for a in angles], colour)

    def line(self, points: Sequence[Point], colour: Colour, width: float) -> None:
        """Stroke a line."""
        thick = max(1, round(width * abs(self.across)))
        self.pen.line(
            [self.at(*point) for point in points], fill=colour, width=thick, joint="curve"
        )

    def glow(self, x: float, y: float, radius: float, colour: Colour, strength: float) -> None:
        """Lay a soft light around x, y."""
        (x, y), radius = self.at(x, y), radius * abs(self.across)
        size = max(2, round(2 * radius))
        mask = _halo(1.6).resize((size, size), Image.Resampling.BILINEAR)
        corner = (round(x - radius), round(y - radius))
        self.image.paste(colour, corner, mask.point(lambda v: v * strength))

    def finish(self) -> Image.Image:
        """Reduce to the size asked for."""
        return self.image.reduce(SCALE)
