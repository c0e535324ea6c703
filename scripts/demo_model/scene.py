"""Scenes: their four attributes, drawing them at any size, and sheets of many images."""

import hashlib
import math
import textwrap
from dataclasses import dataclass
from zlib import crc32

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from .canvas import COLOURS, LIGHTS, WHITE, Canvas, mix
from .places import PLACES
from .sky import rain, sky
from .subjects import FLYING, SUBJECTS

Rng = np.random.Generator
TIMES = tuple(LIGHTS)
PLACE_NAMES = tuple(PLACES)
SUBJECT_NAMES = (*SUBJECTS, "none")
COLOUR_NAMES = tuple(COLOURS)
HELD_OUT_SHARE = 0.08
EMPTY_SHARE = 0.14
LAYOUTS = 3
"""Arrangements of each sky, place and subject. Few, so that a small model learns them sharply in
an hour on two cores: with every image arranged anew it paints the mean of all of them."""


@dataclass(frozen=True)
class Scene:
    """What an image shows; colour is that of the subject, 'none' without one."""

    time: str
    place: str
    subject: str
    colour: str

    @property
    def held_out(self) -> bool:
        """Whether this combination is kept out of training."""
        key = f"{self.time}/{self.place}/{self.subject}/{self.colour}".encode()
        return hashlib.sha256(key).digest()[0] < HELD_OUT_SHARE * 256


def all_scenes() -> list[Scene]:
    """Every combination of the four attributes."""
    return [
        Scene(t, p, s, c)
        for t in TIMES
        for p in PLACE_NAMES
        for s in SUBJECT_NAMES
        for c in (COLOUR_NAMES if s != "none" else ("none",))
    ]


def training_scene(rng: Rng) -> Scene:
    """Pick a scene that may be trained on; one in seven is without a subject."""

    def pick(names: tuple[str, ...]) -> str:
        return names[int(rng.integers(len(names)))]

    while True:
        subject = pick(SUBJECT_NAMES[:-1])
        if rng.random() < EMPTY_SHARE:
            subject = "none"
        time, place = pick(TIMES), pick(PLACE_NAMES)
        colour = "none" if subject == "none" else pick(COLOUR_NAMES)
        scene = Scene(time, place, subject, colour)
        if not scene.held_out:
            return scene


def draw(scene: Scene, width: int, height: int, seed: int) -> Image.Image:
    """Draw a scene at width x height pixels; the seed picks one of ``LAYOUTS`` arrangements."""

    def details(part: str) -> Rng:
        """Return the chance that arranges one part of an image, whatever the other parts are."""
        return np.random.default_rng([seed % LAYOUTS, crc32(part.encode())])

    c, ground = Canvas(width, height, LIGHTS[scene.time]), details(scene.place)
    horizon = c.h * ground.uniform(0.56, 0.61)
    sky(c, horizon, details(scene.time))
    PLACES[scene.place](c, horizon, ground)
    if scene.time == "storm":
        rain(c, details("rain"))
    if scene.subject != "none":
        _place_subject(c, scene, details(scene.subject))
    return c.finish()


def _place_subject(c: Canvas, scene: Scene, rng: Rng) -> None:
    """Put the subject near the lower centre, on ground or water that suits it."""
    squeeze = 1 + 0.22 * (1 - c.unit / max(c.w, c.h))
    size = c.unit * rng.uniform(0.40, 0.45) * squeeze
    x = c.w / 2 + rng.uniform(-0.06, 0.06) * c.w
    y = c.h * 0.86 + rng.uniform(-0.015, 0.015) * c.h
    wet = scene.place in {"lake", "sea"}
    water = c.light.water
    if scene.subject in FLYING:
        y = c.h * (0.70 if scene.subject == "rocket" else 0.64) + rng.uniform(-0.03, 0.03) * c.h
    elif scene.subject == "boat":
        if not wet:
            c.oval(x, y, 0.78 * size, 0.13 * size, water[1])
            c.oval(x, y - 0.01 * size, 0.7 * size, 0.1 * size, mix(*water, 0.3))
        c.oval(x, y, 0.5 * size, 0.05 * size, mix(water[0], WHITE, 0.45))
    else:
        if wet:
            c.oval(x, y + 0.03 * size, 0.85 * size, 0.16 * size, c.lit((226, 200, 140)))
            c.oval(x, y, 0.78 * size, 0.12 * size, c.lit((104, 170, 80)))
        c.oval(x, y, 0.5 * size, 0.06 * size, c.lit((40, 60, 50)))
    c.glow(x, y - 0.5 * size, 0.8 * size, mix(c.light.sky[2], WHITE, 0.3), 0.35)
    flip = float(rng.choice([-1.0, 1.0]))
    colour = COLOURS[scene.colour]
    # Only lightly tinted, so that the subject stays readable.
    tinted = mix(colour, c.lit(colour), 0.25)
    SUBJECTS[scene.subject](c.local(x, y, flip * size, -size), tinted)


def sheet(images: list[Image.Image], texts: list[str], *, columns: int, side: int) -> Image.Image:
    """Lay images out in rows, each with its caption below, ``side`` pixels an image."""
    gap, line, lines = 8, 13, 3
    across, down = side + gap, side + lines * line + 4 + gap
    rows = math.ceil(len(images) / columns)
    page = Image.new("RGB", (columns * across + gap, rows * down + gap), "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(11)
    for number, (image, text) in enumerate(zip(images, texts, strict=True)):
        x, y = gap + number % columns * across, gap + number // columns * down
        page.paste(ImageOps.pad(image, (side, side), color="white"), (x, y))
        words = "\n".join(textwrap.wrap(text, side // 6)[:lines])
        pen.text((x, y + side + 2), words, fill=(60, 60, 70), font=font)
    return page
