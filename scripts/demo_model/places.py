"""The nine places, drawn in layers from far to near."""

# ruff: noqa: PLR0917, PLR2004 - drawing is made of proportions

from collections.abc import Callable, Iterator
from typing import Final

import numpy as np
from PIL import Image

from .canvas import WHITE, Canvas, Colour, darker, lighter, mix

Rng = np.random.Generator


def steps(start: float, end: float, step: float) -> Iterator[float]:
    """Go from start to end."""
    while start < end:
        yield start
        start += step


PEAKS: Final = ((0.03, 0.62), (0.97, 0.58), (0.7, 0.78), (0.3, 1.0))
"""Peaks of a ridge from far to near: place as a share of the width, share of the full height.

They stand nearly at the same places in all images: of peaks anywhere a small model learns the
mean, which is a band.
"""


def ridge(c: Canvas, base: float, height: float, colour: Colour, rng: Rng) -> None:
    """Draw four peaks, each with a shaded right flank and a snow cap."""
    cap, k = c.lit((250, 250, 255), 0.05), 0.36
    for place, share in PEAKS:
        px = (place + rng.uniform(-0.03, 0.03)) * c.w
        ph = height * c.unit * share * rng.uniform(0.94, 1.0)
        peak = c.local(px, base - ph, ph * 0.95, ph)
        peak.poly([(-1, 1), (0, 0), (1, 1)], colour)
        peak.poly([(0, 0), (1, 1), (0.12, 1)], darker(colour, 0.3))
        edge = [(-k, k), (-0.18, 0.27), (-0.05, 0.4), (0.1, 0.28), (0.2, 0.38), (k, k)]
        peak.poly([(0, 0), *edge], cap)
        peak.poly([(0, 0), (0.1, 0.28), (0.2, 0.38), (k, k)], darker(cap, 0.18))
    c.pen.rectangle((0, base - 1, c.w, c.h), fill=colour)


def rolling(
    c: Canvas, base: float, swell: float, colour: Colour, rng: Rng, waves: float = 1.0
) -> None:
    """Fill everything below a smooth wavy line."""
    phase, phase2 = rng.uniform(0, 2 * np.pi, 2)
    xs = np.linspace(0, c.w, 48)
    at = xs / c.unit
    wave = np.sin(at * 3.6 * waves + phase) + 0.5 * np.sin(at * 6.1 * waves + phase2)
    ys = base - swell * c.unit * wave / 1.5
    c.poly([*zip(xs.tolist(), ys.tolist(), strict=True), (c.w, c.h), (0, c.h)], colour)


def pine(
    c: Canvas, x: float, y: float, s: float, colour: Colour, trunk: Colour, snow: Colour | None
) -> None:
    """Draw a three-tiered pine of height s standing at x, y."""
    p = c.local(x, y, s, -s)
    p.box(-0.045, 0.2, 0.045, 0, trunk)
    for low, high, half in ((0.12, 0.55, 0.27), (0.36, 0.78, 0.21), (0.6, 1.0, 0.15)):
        p.poly([(-half, low), (0, high), (half, low)], colour)
        p.poly([(0, low), (0, high), (half, low)], darker(colour, 0.18))
        if snow is not None:
            t = high - 0.45 * (high - low)
            p.poly([(-half * 0.45, t), (0, high), (half * 0.45, t)], snow)


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
    """Draw a row of pines across the image; s and step are shares of its shorter side."""
    s, step = s * c.unit, step * c.unit
    x = rng.uniform(-0.5, 0.5) * step
    while x < c.w + step:
        pine(c, x, y, s * rng.uniform(0.75, 1.1), colour, trunk, snow)
        x += step * rng.uniform(0.75, 1.2)


def cactus(c: Canvas, x: float, y: float, s: float, colour: Colour) -> None:
    """Draw a cactus with two arms, s high."""
    p, r = c.local(x, y, s, -s), 0.09
    p.box(-r, 1, r, -0.1, colour, r)
    for side, low, high in ((-1, 0.4, 0.78), (1, 0.3, 0.66)):
        out, elbow = side * 0.32, low - r * 0.8
        p.box(0, low + r, out, elbow, colour, r)
        p.box(out - r * 0.9, high, out + r * 0.9, elbow, colour, r)


def blossom(c: Canvas, x: float, y: float, r: float, colour: Colour) -> None:
    """Draw one small round flower of radius r on its stem."""
    p = c.local(x, y, r, r)
    p.line([(0, 0), (0, 1.9)], c.lit((50, 130, 60)), 0.36)
    for dx, dy in ((-0.5, 0.0), (0.5, 0.0), (0.0, -0.5), (0.0, 0.5)):
        p.oval(dx, dy, 0.58, 0.58, colour)
    p.oval(0, 0, 0.36, 0.36, c.lit((255, 236, 140)))


def mountains(c: Canvas, y: float, rng: Rng) -> None:
    """Draw snow-capped peaks over a meadow."""
    ridge(c, y + 0.09 * c.h, 0.46, c.lit((84, 96, 148), 0.15), rng)
    rolling(c, y + 0.07 * c.h, 0.02, c.lit((70, 112, 92), 0.1), rng)
    rolling(c, y + 0.10 * c.h, 0.02, c.lit((96, 150, 84), 0.1), rng)
    rolling(c, y + 0.24 * c.h, 0.025, c.lit((72, 128, 66)), rng)


def hills(c: Canvas, y: float, rng: Rng) -> None:
    """Draw rolling green hills with round trees."""
    rolling(c, y - 0.03 * c.h, 0.06, c.lit((150, 196, 112), 0.45), rng, 1.2)
    rolling(c, y + 0.04 * c.h, 0.06, c.lit((142, 198, 86), 0.2), rng, 1.2)
    for _ in range(round(3 * c.w / c.unit)):
        x, b = rng.uniform(0, c.w), y + rng.uniform(0.08, 0.12) * c.h
        r = rng.uniform(0.028, 0.045) * c.unit
        c.box(x - 0.2 * r, b - r, x + 0.2 * r, b + r, c.lit((96, 66, 46)))
        c.oval(x, b - 1.6 * r, r, 1.25 * r, c.lit((70, 140, 70), 0.08))
    rolling(c, y + 0.13 * c.h, 0.04, c.lit((116, 182, 70), 0.06), rng, 1.1)
    rolling(c, y + 0.25 * c.h, 0.035, c.lit((92, 160, 58)), rng, 0.9)


def lake(c: Canvas, y: float, rng: Rng) -> None:
    """Draw a calm lake below mountains, their reflection in it, and a reedy shore."""
    u, shore = c.unit, y + 0.05 * c.h
    ridge(c, shore, 0.4, c.lit((84, 96, 148), 0.15), rng)
    sky_and_peaks = c.image.crop((0, int(2 * shore - c.h), int(c.w), int(shore)))
    c.gradient(shore, c.h, c.light.water)
    mirror = sky_and_peaks.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    mirror = mirror.resize((int(c.w), int(c.h - shore)))
    c.image.paste(mirror, (0, int(shore)), mirror.convert("L").point(lambda _: 110))
    pine_green, trunk = c.lit((44, 96, 78), 0.12), c.lit((70, 50, 40))
    pines(c, shore + 0.012 * u, 0.055, 0.05, pine_green, trunk, rng)
    c.box(0, shore, c.w, shore + 0.014 * u, c.lit((60, 104, 74), 0.05))
    bands = round(7 * c.w / u)
    for i in range(bands):
        t = (i + 0.5) / bands
        x, half = rng.uniform(0, c.w), (0.06 + 0.12 * t) * u
        row = shore + (0.06 + 0.9 * t) * (c.h - shore)
        c.box(
            x - half, row, x + half, row + 0.01 * u, mix(c.light.water[0], WHITE, 0.35), 0.005 * u
        )


def sea(c: Canvas, y: float, rng: Rng) -> None:
    """Draw an open sea with rows of waves and a sandy beach."""
    far = mix(c.light.water[0], c.lit((40, 170, 200)), 0.5)
    c.gradient(y, c.h, [far, c.lit((16, 84, 150), 0.05)])
    crest = mix(c.lit((40, 150, 196)), WHITE, 0.42)
    for i in range(5):
        t = (i + 0.6) / 5
        row, arc = y + t * 0.86 * (c.h - y), (0.05 + 0.05 * t) * c.unit
        for x in steps(-rng.uniform(0, 2) * arc, c.w + arc, 2 * arc):
            c.pen.chord((x - arc, row - 0.6 * arc, x + arc, row + 0.6 * arc), 200, 340, fill=crest)
    beach = [(0, 0.93), (0.3, 0.945), (0.65, 0.965), (1, 0.935), (1, 1), (0, 1)]
    c.local(0, -0.018 * c.h, c.w, c.h).poly(beach, c.lit((248, 252, 255), 0.1))
    c.local(0, 0, c.w, c.h).poly(beach, c.lit((240, 212, 150)))


def desert(c: Canvas, y: float, rng: Rng) -> None:
    """Draw sand dunes, flat-topped rocks and cactuses."""
    u = c.unit
    rock = c.lit((202, 104, 66), 0.25)
    for _ in range(max(2, round(2 * c.w / u))):
        x, half, up = rng.uniform(0, c.w), rng.uniform(0.08, 0.15) * u, rng.uniform(0.08, 0.16) * u
        p = c.local(x, y + 0.08 * c.h, half, -up - 0.08 * c.h)
        p.poly([(-1.3, 0), (-1, 1), (1, 1), (1.3, 0)], rock)
        p.poly([(0.3, 0), (0.3, 1), (1, 1), (1.3, 0)], darker(rock, 0.2))
    rolling(c, y + 0.04 * c.h, 0.03, c.lit((240, 200, 124), 0.15), rng)
    rolling(c, y + 0.13 * c.h, 0.04, c.lit((232, 178, 92), 0.05), rng, 0.8)
    for side in (-1, 1):
        x, foot = c.w / 2 + side * rng.uniform(0.3, 0.42) * c.w, rng.uniform(0.16, 0.24)
        cactus(c, x, y + foot * c.h, rng.uniform(0.17, 0.24) * u, c.lit((60, 140, 84)))
    rolling(c, y + 0.26 * c.h, 0.03, c.lit((220, 158, 74)), rng, 0.7)


def forest(c: Canvas, y: float, rng: Rng) -> None:
    """Draw deep rows of pines that close in at both sides."""
    trunk = c.lit((92, 62, 44))
    c.box(0, y - 0.02 * c.h, c.w, c.h, c.lit((60, 110, 90), 0.3))
    pines(c, y + 0.05 * c.h, 0.36, 0.14, c.lit((66, 132, 108), 0.42), trunk, rng)
    pines(c, y + 0.11 * c.h, 0.32, 0.2, c.lit((40, 112, 84), 0.18), trunk, rng)
    rolling(c, y + 0.1 * c.h, 0.012, c.lit((70, 128, 66), 0.05), rng)
    rolling(c, y + 0.25 * c.h, 0.02, c.lit((52, 106, 54)), rng)
    for side in (-1, 1):
        for out, down, size in ((0.30, 0.17, 0.52), (0.45, 0.27, 0.72)):
            x = c.w / 2 + side * (out + rng.uniform(-0.03, 0.03)) * c.w
            s = size * c.unit * rng.uniform(0.9, 1.1)
            pine(c, x, y + down * c.h, s, c.lit((28, 92, 66)), trunk, None)


def city(c: Canvas, y: float, rng: Rng) -> None:
    """Draw two rows of towers with big windows behind a street."""
    u, base = c.unit, y + 0.12 * c.h
    lamps = c.light.time in {"night", "storm", "sunset"}
    window = (255, 222, 120) if lamps else mix((190, 224, 244), c.light.haze, 0.2)
    for depth, low, high, wide in ((0.5, 0.24, 0.44, 0.14), (0.12, 0.12, 0.32, 0.17)):
        x = -rng.uniform(0, 0.1) * u
        while x < c.w:
            w, up = wide * u * rng.uniform(0.8, 1.25), rng.uniform(low, high) * u + 0.12 * c.h
            tint = ((112, 128, 168), (140, 116, 150), (96, 142, 164))[int(rng.integers(3))]
            wall = c.lit(tint, depth)
            c.box(x, base - up, x + w * 0.94, base, wall)
            c.box(x + w * 0.7, base - up, x + w * 0.94, base, darker(wall, 0.18))
            if depth < 0.3:
                pane = 0.032 * u
                for row in steps(base - up + 0.035 * u, base - 0.05 * u, 0.066 * u):
                    for k in (0.12, 0.42):
                        if rng.uniform() < 0.8:
                            c.box(x + k * w, row, x + k * w + pane, row + pane, window)
            x += w
    c.box(0, y + 0.11 * c.h, c.w, c.h, c.lit((150, 152, 160)))
    c.box(0, y + 0.17 * c.h, c.w, c.h, c.lit((82, 84, 100)))
    dash, row = 0.1 * u, c.h * 0.945
    for x in steps(rng.uniform(-0.2, 0) * u, c.w, 2 * dash):
        c.box(x, row, x + dash, row + 0.016 * u, c.lit((250, 226, 130)))


def garden(c: Canvas, y: float, rng: Rng) -> None:
    """Draw a lawn with a round hedge, a white fence and beds of bright flowers."""
    u, hedge, fence = c.unit, c.lit((62, 140, 72), 0.1), c.lit((252, 248, 240))
    for x in steps(-0.05 * u, c.w + 0.1 * u, 0.1 * u):
        r = rng.uniform(0.075, 0.11) * u
        c.oval(x, y + 0.06 * c.h, r, r * 1.1, hedge)
    c.box(0, y + 0.06 * c.h, c.w, c.h, hedge)
    c.box(0, y + 0.055 * c.h, c.w, y + 0.055 * c.h + 0.018 * u, fence)
    board = [(0, 0), (0, -0.11), (0.018, -0.135), (0.036, -0.11), (0.036, 0)]
    for x in steps(0.02 * u, c.w, 0.075 * u):
        c.local(x, y + 0.11 * c.h, u, u).poly(board, fence)
    c.box(0, y + 0.105 * c.h, c.w, c.h, c.lit((132, 204, 92)))
    rolling(c, y + 0.25 * c.h, 0.015, c.lit((112, 188, 78)), rng)
    petals = ((255, 106, 136), (255, 206, 70), WHITE, (190, 110, 230), (255, 140, 70))
    for row, size in ((0.145, 0.022), (0.36, 0.036)):
        step = 3.2 * size * u
        for x in steps(rng.uniform(0, 1) * step, c.w, step):
            fx, fy = x + rng.uniform(-0.2, 0.2) * step, row + rng.uniform(-0.008, 0.012)
            petal = lighter(c.lit(petals[int(rng.integers(5))]), 0.08)
            blossom(c, fx, y + fy * c.h, size * u, petal)


def snow(c: Canvas, y: float, rng: Rng) -> None:
    """Draw snowy slopes, snow-laden pines and big flakes."""
    u, white, trunk = c.unit, c.lit((248, 252, 255), 0.04), c.lit((92, 66, 54))
    rolling(c, y - 0.02 * c.h, 0.06, c.lit((206, 222, 242), 0.25), rng)
    pines(c, y + 0.09 * c.h, 0.2, 0.17, c.lit((56, 118, 110), 0.18), trunk, rng, white)
    rolling(c, y + 0.08 * c.h, 0.03, c.lit((226, 236, 250), 0.06), rng)
    for side in (-1, 1):
        x, s = c.w / 2 + side * rng.uniform(0.33, 0.43) * c.w, rng.uniform(0.34, 0.42) * u
        pine(c, x, y + 0.23 * c.h, s, c.lit((44, 108, 96)), trunk, white)
    rolling(c, y + 0.22 * c.h, 0.025, white, rng)
    if c.light.time != "storm":
        for _ in range(int(22 * c.w * c.h / u**2)):
            r = u * float(rng.choice([0.006, 0.009]))
            c.oval(rng.uniform(0, c.w), rng.uniform(0, c.h), r, r, mix(white, WHITE, 0.6))


PLACES: dict[str, Callable[[Canvas, float, Rng], None]] = {
    draw.__name__: draw
    for draw in (mountains, hills, lake, sea, desert, forest, city, garden, snow)
}
