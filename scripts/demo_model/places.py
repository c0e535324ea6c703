"""The nine places, drawn in layers from far to near."""

# ruff: noqa: PLR0917, PLR2004 - drawing is made of proportions

from collections.abc import Callable

import numpy as np
from PIL import Image

from .canvas import Canvas
from .palette import Colour, Light, darker, lighter, lit, mix
from .plants import blossom, cactus, pine, pines

Rng = np.random.Generator


def ridge(
    c: Canvas,
    base: float,
    height: float,
    colour: Colour,
    rng: Rng,
    step: float,
    snow: Colour | None = None,
) -> None:
    """Draw a row of peaks, each with a shaded right face and perhaps a snow cap."""
    u = c.unit
    x = -rng.uniform(0.1, 0.5) * step * u
    peaks = []
    while x < c.w + step * u:
        peaks.append((x, height * u * rng.uniform(0.6, 1.0), step * u * rng.uniform(0.8, 1.05)))
        x += step * u * rng.uniform(0.6, 0.9)
    rng.shuffle(peaks)
    for px, ph, pw in sorted(peaks, key=lambda p: -p[1]):
        top = base - ph
        c.polygon([(px - pw, base), (px, top), (px + pw, base)], colour)
        c.polygon([(px, top), (px + pw, base), (px + 0.12 * pw, base)], darker(colour, 0.22))
        if snow is not None:
            k = 0.36
            edge = [(-k, k), (-0.18, 0.27), (-0.05, 0.4), (0.1, 0.28), (0.2, 0.38), (k, k)]
            c.polygon([(px, top), *[(px + ex * pw, top + ey * ph) for ex, ey in edge]], snow)
            c.polygon(
                [
                    (px, top),
                    (px + 0.1 * pw, top + 0.28 * ph),
                    (px + 0.2 * pw, top + 0.38 * ph),
                    (px + k * pw, top + k * ph),
                ],
                darker(snow, 0.14),
            )
    c.pen.rectangle((0, base - 1, c.w, c.h), fill=colour)


def rolling(
    c: Canvas, base: float, swell: float, colour: Colour, rng: Rng, waves: float = 1.0
) -> None:
    """Fill everything below a smooth wavy line."""
    u = c.unit
    phase, phase2 = rng.uniform(0, 2 * np.pi, 2)
    xs = np.linspace(0, c.w, 48)
    ys = (
        base
        - swell
        * u
        * (np.sin(xs / u * 3.6 * waves + phase) + 0.5 * np.sin(xs / u * 6.1 * waves + phase2))
        / 1.5
    )
    c.polygon([*zip(xs.tolist(), ys.tolist(), strict=True), (c.w, c.h), (0, c.h)], colour)


def mountains(c: Canvas, light: Light, y: float, rng: Rng) -> None:
    """Draw snow-capped peaks over a meadow."""
    cap = lit((250, 250, 255), light, 0.12)
    ridge(c, y + 0.05 * c.h, 0.36, lit((116, 124, 168), light, 0.42), rng, 0.36, cap)
    ridge(c, y + 0.08 * c.h, 0.17, lit((74, 92, 128), light, 0.2), rng, 0.26)
    rolling(c, y + 0.10 * c.h, 0.02, lit((96, 150, 84), light, 0.1), rng)
    rolling(c, y + 0.24 * c.h, 0.025, lit((72, 128, 66), light), rng)


def hills(c: Canvas, light: Light, y: float, rng: Rng) -> None:
    """Draw rolling green hills with round trees."""
    rolling(c, y - 0.03 * c.h, 0.06, lit((150, 196, 112), light, 0.45), rng, 1.2)
    rolling(c, y + 0.04 * c.h, 0.06, lit((142, 198, 86), light, 0.2), rng, 1.2)
    for _ in range(round(3 * c.w / c.unit)):
        x, b, r = (
            rng.uniform(0, c.w),
            y + rng.uniform(0.08, 0.12) * c.h,
            rng.uniform(0.028, 0.045) * c.unit,
        )
        c.rectangle(x - 0.2 * r, b - r, x + 0.2 * r, b + r, lit((96, 66, 46), light))
        c.ellipse(x, b - 1.6 * r, r, 1.25 * r, lit((70, 140, 70), light, 0.08))
    rolling(c, y + 0.13 * c.h, 0.04, lit((116, 182, 70), light, 0.06), rng, 1.1)
    rolling(c, y + 0.25 * c.h, 0.035, lit((92, 160, 58), light), rng, 0.9)


def water(c: Canvas, light: Light, y: float, rng: Rng, bands: int) -> None:
    """Fill with water below y and lay light bands on it."""
    u = c.unit
    c.gradient(y, c.h, light.water)
    for i in range(round(bands * c.w / u)):
        t = (i + rng.uniform(0, 1)) / (bands * c.w / u)
        row = y + (0.03 + 0.9 * t) * (c.h - y)
        x, half = rng.uniform(0, c.w), (0.05 + 0.12 * t) * u
        tone = mix(mix(*light.water, t), (255, 255, 255), 0.28)
        c.rectangle(x - half, row, x + half, row + 0.011 * u, tone, 0.005 * u)


def lake(c: Canvas, light: Light, y: float, rng: Rng) -> None:
    """Draw a calm lake below mountains, their reflection in it, and a reedy shore."""
    shore = y + 0.05 * c.h
    ridge(
        c, shore, 0.3, lit((112, 122, 166), light, 0.4), rng, 0.4, lit((250, 250, 255), light, 0.12)
    )
    sky_and_peaks = c.image.crop((0, int(2 * shore - c.h), int(c.w), int(shore)))
    c.gradient(shore, c.h, light.water)
    mirror = sky_and_peaks.transpose(Image.Transpose.FLIP_TOP_BOTTOM).resize(
        (int(c.w), int(c.h - shore))
    )
    c.image.paste(mirror, (0, int(shore)), mirror.convert("L").point(lambda _: 110))
    pines(
        c,
        shore + 0.012 * c.unit,
        0.085 * c.unit,
        0.06 * c.unit,
        lit((44, 96, 78), light, 0.12),
        lit((70, 50, 40), light),
        rng,
    )
    c.rectangle(0, shore, c.w, shore + 0.014 * c.unit, lit((60, 104, 74), light, 0.05))
    for i in range(round(7 * c.w / c.unit)):
        t = (i + 0.5) / round(7 * c.w / c.unit)
        x, half = rng.uniform(0, c.w), (0.06 + 0.12 * t) * c.unit
        row = shore + (0.06 + 0.9 * t) * (c.h - shore)
        c.rectangle(
            x - half,
            row,
            x + half,
            row + 0.01 * c.unit,
            mix(light.water[0], (255, 255, 255), 0.35),
            0.005 * c.unit,
        )


def sea(c: Canvas, light: Light, y: float, rng: Rng) -> None:
    """Draw an open sea with rows of waves and a sandy beach."""
    u = c.unit
    c.gradient(
        y,
        c.h,
        [mix(light.water[0], lit((40, 170, 200), light), 0.5), lit((16, 84, 150), light, 0.05)],
    )
    rows = 5
    for i in range(rows):
        t = (i + 0.6) / rows
        row, arc = y + t * 0.86 * (c.h - y), (0.05 + 0.05 * t) * u
        x = -rng.uniform(0, 2) * arc
        crest = mix(lit((40, 150, 196), light), (255, 255, 255), 0.42)
        while x < c.w + arc:
            c.pen.chord((x - arc, row - 0.6 * arc, x + arc, row + 0.6 * arc), 200, 340, fill=crest)
            x += 2 * arc
    beach = [
        (0, c.h * 0.93),
        (c.w * 0.3, c.h * 0.945),
        (c.w * 0.65, c.h * 0.965),
        (c.w, c.h * 0.935),
        (c.w, c.h),
        (0, c.h),
    ]
    c.polygon([(px, py - 0.018 * c.h) for px, py in beach], lit((248, 252, 255), light, 0.1))
    c.polygon(beach, lit((240, 212, 150), light))


def desert(c: Canvas, light: Light, y: float, rng: Rng) -> None:
    """Draw sand dunes, flat-topped rocks and cactuses."""
    u = c.unit
    for _ in range(max(2, round(2 * c.w / u))):
        x, half, up = rng.uniform(0, c.w), rng.uniform(0.08, 0.15) * u, rng.uniform(0.08, 0.16) * u
        rock = lit((202, 104, 66), light, 0.25)
        b = y + 0.08 * c.h
        c.polygon(
            [
                (x - half * 1.3, b),
                (x - half, b - up - 0.08 * c.h),
                (x + half, b - up - 0.08 * c.h),
                (x + half * 1.3, b),
            ],
            rock,
        )
        c.polygon(
            [
                (x + half * 0.3, b),
                (x + half * 0.3, b - up - 0.08 * c.h),
                (x + half, b - up - 0.08 * c.h),
                (x + half * 1.3, b),
            ],
            darker(rock, 0.2),
        )
    rolling(c, y + 0.04 * c.h, 0.03, lit((240, 200, 124), light, 0.15), rng)
    rolling(c, y + 0.13 * c.h, 0.04, lit((232, 178, 92), light, 0.05), rng, 0.8)
    for side in (-1, 1):
        x = c.w / 2 + side * rng.uniform(0.3, 0.42) * c.w
        cactus(
            c,
            x,
            y + rng.uniform(0.16, 0.24) * c.h,
            rng.uniform(0.17, 0.24) * u,
            lit((60, 140, 84), light),
        )
    rolling(c, y + 0.26 * c.h, 0.03, lit((220, 158, 74), light), rng, 0.7)


def forest(c: Canvas, light: Light, y: float, rng: Rng) -> None:
    """Draw deep rows of pines that close in at both sides."""
    u = c.unit
    trunk = lit((92, 62, 44), light)
    c.rectangle(0, y - 0.02 * c.h, c.w, c.h, lit((60, 110, 90), light, 0.3))
    pines(c, y + 0.05 * c.h, 0.36 * u, 0.14 * u, lit((66, 132, 108), light, 0.42), trunk, rng)
    pines(c, y + 0.11 * c.h, 0.32 * u, 0.2 * u, lit((40, 112, 84), light, 0.18), trunk, rng)
    rolling(c, y + 0.1 * c.h, 0.012, lit((70, 128, 66), light, 0.05), rng)
    rolling(c, y + 0.25 * c.h, 0.02, lit((52, 106, 54), light), rng)
    for side in (-1, 1):
        for out, down, s in ((0.30, 0.17, 0.52), (0.45, 0.27, 0.72)):
            x = c.w / 2 + side * (out + rng.uniform(-0.03, 0.03)) * c.w
            pine(
                c, x, y + down * c.h, s * u * rng.uniform(0.9, 1.1), lit((28, 92, 66), light), trunk
            )


def city(c: Canvas, light: Light, y: float, rng: Rng) -> None:
    """Draw two rows of towers with big windows behind a street."""
    u = c.unit
    window = (
        (255, 222, 120)
        if light.time in {"night", "storm", "sunset"}
        else mix((190, 224, 244), light.haze, 0.2)
    )
    for depth, low, high, wide in ((0.5, 0.24, 0.44, 0.14), (0.12, 0.12, 0.32, 0.17)):
        x = -rng.uniform(0, 0.1) * u
        base = y + 0.12 * c.h
        while x < c.w:
            w, up = wide * u * rng.uniform(0.8, 1.25), rng.uniform(low, high) * u + 0.12 * c.h
            tint = ((112, 128, 168), (140, 116, 150), (96, 142, 164))[int(rng.integers(3))]
            wall = lit(tint, light, depth)
            c.rectangle(x, base - up, x + w * 0.94, base, wall)
            c.rectangle(x + w * 0.7, base - up, x + w * 0.94, base, darker(wall, 0.18))
            if depth < 0.3:
                pane, row = 0.032 * u, base - up + 0.035 * u
                while row < base - 0.05 * u:
                    for k in (0.12, 0.42):
                        if rng.uniform() < 0.8:
                            c.rectangle(x + k * w, row, x + k * w + pane, row + pane, window)
                    row += 0.066 * u
            x += w
    c.rectangle(0, y + 0.11 * c.h, c.w, c.h, lit((150, 152, 160), light))
    c.rectangle(0, y + 0.17 * c.h, c.w, c.h, lit((82, 84, 100), light))
    dash, x = 0.1 * u, rng.uniform(-0.2, 0) * u
    while x < c.w:
        c.rectangle(x, c.h * 0.945, x + dash, c.h * 0.945 + 0.016 * u, lit((250, 226, 130), light))
        x += 2 * dash


def garden(c: Canvas, light: Light, y: float, rng: Rng) -> None:
    """Draw a lawn with a round hedge, a white fence and beds of bright flowers."""
    u = c.unit
    x = -0.05 * u
    while x < c.w + 0.1 * u:
        r = rng.uniform(0.075, 0.11) * u
        c.ellipse(x, y + 0.06 * c.h, r, r * 1.1, lit((62, 140, 72), light, 0.1))
        x += 0.1 * u
    c.rectangle(0, y + 0.06 * c.h, c.w, c.h, lit((62, 140, 72), light, 0.1))
    x = 0.02 * u
    fence = lit((252, 248, 240), light)
    c.rectangle(0, y + 0.055 * c.h, c.w, y + 0.055 * c.h + 0.018 * u, fence)
    while x < c.w:
        b = y + 0.11 * c.h
        c.polygon(
            [
                (x, b),
                (x, b - 0.11 * u),
                (x + 0.018 * u, b - 0.135 * u),
                (x + 0.036 * u, b - 0.11 * u),
                (x + 0.036 * u, b),
            ],
            fence,
        )
        x += 0.075 * u
    c.rectangle(0, y + 0.105 * c.h, c.w, c.h, lit((132, 204, 92), light))
    rolling(c, y + 0.25 * c.h, 0.015, lit((112, 188, 78), light), rng)
    petals: tuple[Colour, ...] = (
        (255, 106, 136),
        (255, 206, 70),
        (255, 255, 255),
        (190, 110, 230),
        (255, 140, 70),
    )
    for row, size in ((0.145, 0.022), (0.36, 0.036)):
        step = 3.2 * size * u
        x = rng.uniform(0, 1) * step
        while x < c.w:
            fx, fy = x + rng.uniform(-0.2, 0.2) * step, y + (row + rng.uniform(-0.008, 0.012)) * c.h
            blossom(
                c, fx, fy, size * u, lighter(lit(petals[int(rng.integers(5))], light), 0.08), light
            )
            x += step


def snow(c: Canvas, light: Light, y: float, rng: Rng) -> None:
    """Draw snowy slopes, snow-laden pines and big flakes."""
    u = c.unit
    white = lit((248, 252, 255), light, 0.04)
    rolling(c, y - 0.02 * c.h, 0.06, lit((206, 222, 242), light, 0.25), rng)
    trunk = lit((92, 66, 54), light)
    pines(c, y + 0.09 * c.h, 0.2 * u, 0.17 * u, lit((56, 118, 110), light, 0.18), trunk, rng, white)
    rolling(c, y + 0.08 * c.h, 0.03, lit((226, 236, 250), light, 0.06), rng)
    for side in (-1, 1):
        x = c.w / 2 + side * rng.uniform(0.33, 0.43) * c.w
        pine(
            c,
            x,
            y + 0.23 * c.h,
            rng.uniform(0.34, 0.42) * u,
            lit((44, 108, 96), light),
            trunk,
            white,
        )
    rolling(c, y + 0.22 * c.h, 0.025, white, rng)
    if light.time != "storm":
        for _ in range(int(22 * c.w * c.h / u**2)):
            r = u * float(rng.choice([0.006, 0.009]))
            c.ellipse(
                rng.uniform(0, c.w), rng.uniform(0, c.h), r, r, mix(white, (255, 255, 255), 0.6)
            )


PLACES: dict[str, Callable[[Canvas, Light, float, Rng], None]] = {
    "mountains": mountains,
    "hills": hills,
    "lake": lake,
    "sea": sea,
    "desert": desert,
    "forest": forest,
    "city": city,
    "garden": garden,
    "snow": snow,
}
