"""Skies: sun, moon, stars, clouds, lightning and rain."""

import numpy as np

from .canvas import WHITE, Canvas, Colour, mix

Rng = np.random.Generator


def sky(c: Canvas, horizon: float, rng: Rng) -> None:
    """Draw the sky with its sun, moon, stars, clouds or lightning."""
    u, light = c.unit, c.light
    c.gradient(0, horizon, light.sky)
    c.gradient(horizon, c.h, (light.sky[2], light.sky[2]))
    side = float(rng.choice([-1.0, 1.0]))
    x = c.w / 2 + side * rng.uniform(0.18, 0.32) * c.w

    def disc(y: float, radius: float, halo: float, colour: Colour, strength: float) -> None:
        c.glow(x, y, halo * u, colour, strength)
        c.oval(x, y, radius * u, radius * u, light.disc)

    if light.time == "sunset":
        x = c.w / 2 + side * rng.uniform(0.0, 0.25) * c.w
        disc(horizon - rng.uniform(0.10, 0.16) * u, 0.125, 0.55, (255, 214, 130), 0.75)
        clouds(c, horizon, mix(light.sky[1], light.sky[0], 0.45), rng, flat=True)
    elif light.time == "night":
        for _ in range(int(20 * c.w * horizon / u**2) + 8):
            r = u * float(rng.choice([0.005, 0.007, 0.010]))
            c.oval(rng.uniform(0, c.w), rng.uniform(0, horizon), r, r, (236, 238, 255))
        y = rng.uniform(0.14, 0.24) * c.h
        disc(y, 0.078, 0.3, (190, 200, 255), 0.6)
        shadow = mix(light.sky[0], light.sky[1], 0.5)
        c.oval(x + 0.036 * u, y - 0.018 * u, 0.064 * u, 0.064 * u, shadow)
    elif light.time == "day":
        disc(rng.uniform(0.13, 0.2) * c.h, 0.075, 0.34, (255, 250, 214), 0.8)
        clouds(c, horizon, WHITE, rng)
    elif light.time == "dawn":
        disc(horizon - rng.uniform(0.03, 0.07) * u, 0.09, 0.5, (255, 244, 226), 0.8)
        clouds(c, horizon, mix(light.sky[1], (255, 240, 246), 0.55), rng, flat=True)
    else:
        clouds(c, horizon * 0.8, (58, 68, 72), rng, count=5, low=0.0)
        clouds(c, horizon * 0.5, (36, 44, 50), rng, count=4, low=-0.1)
        bolt(c, x, horizon, rng)


def clouds(
    c: Canvas,
    horizon: float,
    colour: Colour,
    rng: Rng,
    *,
    count: int = 3,
    flat: bool = False,
    low: float = 0.12,
) -> None:
    """Draw clouds: heaps of discs, or flat streaks."""
    u = c.unit
    count = max(count, round(count * c.w / u))
    for i in range(count):
        x = (i + rng.uniform(0.1, 0.9)) / count * c.w
        y = rng.uniform(low, 0.62) * horizon
        s = rng.uniform(0.09, 0.15) * u
        if flat:
            c.box(x - 1.9 * s, y, x + 1.5 * s, y + 0.22 * s, colour, 0.11 * s)
            c.box(x - 1.0 * s, y + 0.26 * s, x + 2.2 * s, y + 0.46 * s, colour, 0.1 * s)
        else:
            c.box(x - 1.5 * s, y - 0.1 * s, x + 1.5 * s, y + 0.36 * s, colour, 0.23 * s)
            c.oval(x - 0.5 * s, y, 0.6 * s, 0.5 * s, colour)
            c.oval(x + 0.45 * s, y - 0.04 * s, 0.68 * s, 0.62 * s, colour)


def bolt(c: Canvas, x: float, horizon: float, rng: Rng) -> None:
    """Draw a fork of lightning that reaches down to the horizon."""
    u = c.unit
    top, s = 0.3 * horizon, 0.7 * horizon
    c.glow(x, top + 0.5 * s, 0.34 * u, (214, 230, 210), 0.55)
    lean = float(rng.choice([-1.0, 1.0]))
    left = [(0.0, 0.0), (-0.06, 0.45), (0.005, 0.42), (-0.07, 1.0)]
    right = [(0.09, 0.33), (0.025, 0.36), (0.07, 0.0)]
    c.local(x, top, lean * u * 1.1, s).poly(left + right, c.light.disc)


def rain(c: Canvas, rng: Rng) -> None:
    """Draw slanted rain over the whole image."""
    u = c.unit
    for _ in range(int(18 * c.w * c.h / u**2)):
        x, y = rng.uniform(0, c.w * 1.1), rng.uniform(0, c.h)
        c.line([(x, y), (x - 0.03 * u, y + 0.085 * u)], (176, 192, 190), 0.008 * u)
