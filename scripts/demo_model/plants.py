"""Plants that places are made of."""

# ruff: noqa: PLR0917 - drawing is made of proportions

import numpy as np

from .canvas import Canvas
from .palette import Colour, Light, darker, lit

Rng = np.random.Generator


def pine(
    c: Canvas,
    x: float,
    y: float,
    s: float,
    colour: Colour,
    trunk: Colour,
    snow: Colour | None = None,
) -> None:
    """Draw a three-tiered pine of height s standing at x, y."""
    c.rectangle(x - 0.045 * s, y - 0.2 * s, x + 0.045 * s, y, trunk)
    for low, high, half in ((0.12, 0.55, 0.27), (0.36, 0.78, 0.21), (0.6, 1.0, 0.15)):
        c.polygon(
            [(x - half * s, y - low * s), (x, y - high * s), (x + half * s, y - low * s)], colour
        )
        shade = darker(colour, 0.18)
        c.polygon([(x, y - low * s), (x, y - high * s), (x + half * s, y - low * s)], shade)
        if snow is not None:
            t = high - 0.45 * (high - low)
            c.polygon(
                [
                    (x - half * 0.45 * s, y - t * s),
                    (x, y - high * s),
                    (x + half * 0.45 * s, y - t * s),
                ],
                snow,
            )


def pines(
    c: Canvas,
    y: float,
    s: float,
    step: float,
    colour: Colour,
    trunk: Colour,
    rng: Rng,
    snow: Colour | None = None,
) -> None:
    """Draw a row of pines across the picture."""
    x = rng.uniform(-0.5, 0.5) * step
    while x < c.w + step:
        pine(c, x, y, s * rng.uniform(0.75, 1.1), colour, trunk, snow)
        x += step * rng.uniform(0.75, 1.2)


def cactus(c: Canvas, x: float, y: float, s: float, colour: Colour) -> None:
    """Draw a cactus with two arms, s high."""
    r = 0.09 * s
    c.rectangle(x - r, y - s, x + r, y + 0.1 * s, colour, r)
    for side, low, high in ((-1, 0.4, 0.78), (1, 0.3, 0.66)):
        out = x + side * 0.32 * s
        c.rectangle(x, y - low * s - r, out, y - low * s + r * 0.8, colour, r)
        c.rectangle(out - r * 0.9, y - high * s, out + r * 0.9, y - low * s + r * 0.8, colour, r)


def blossom(c: Canvas, x: float, y: float, r: float, colour: Colour, light: Light) -> None:
    """Draw one small round flower of radius r on its stem."""
    c.line([(x, y), (x, y + 1.9 * r)], lit((50, 130, 60), light), 0.36 * r)
    for dx, dy in ((-0.5, 0.0), (0.5, 0.0), (0.0, -0.5), (0.0, 0.5)):
        c.ellipse(x + dx * r, y + dy * r, 0.58 * r, 0.58 * r, colour)
    c.ellipse(x, y, 0.36 * r, 0.36 * r, lit((255, 236, 140), light))
