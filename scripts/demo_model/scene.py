"""A scene: its four attributes, and drawing it at any size."""

import hashlib
from dataclasses import dataclass
from zlib import crc32

import numpy as np
from PIL import Image

from .canvas import Canvas, Local
from .palette import COLOURS, LIGHTS, Light, body, lit, mix
from .places import PLACES
from .sky import rain, sky
from .subjects import FLYING, SUBJECTS

TIMES = tuple(LIGHTS)
PLACE_NAMES = tuple(PLACES)
SUBJECT_NAMES = (*SUBJECTS, "none")
COLOUR_NAMES = tuple(COLOURS)
HELD_OUT_SHARE = 0.08
EMPTY_SHARE = 0.14
LAYOUTS = 3
"""Arrangements of each sky, place and subject. Few, so that a small model learns them sharply in
an hour on two cores: with every picture arranged anew it paints the mean of all of them."""


@dataclass(frozen=True)
class Scene:
    """What a picture shows; colour is that of the subject, 'none' without one."""

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


def training_scene(rng: np.random.Generator) -> Scene:
    """Pick a scene that may be trained on; one in seven is without a subject."""
    while True:
        subject = SUBJECT_NAMES[int(rng.integers(len(SUBJECT_NAMES) - 1))]
        if rng.random() < EMPTY_SHARE:
            subject = "none"
        scene = Scene(
            TIMES[int(rng.integers(len(TIMES)))],
            PLACE_NAMES[int(rng.integers(len(PLACE_NAMES)))],
            subject,
            "none" if subject == "none" else COLOUR_NAMES[int(rng.integers(len(COLOUR_NAMES)))],
        )
        if not scene.held_out:
            return scene


def draw(scene: Scene, width: int, height: int, seed: int) -> Image.Image:
    """Draw a scene at width x height pixels; the seed picks one of ``LAYOUTS`` arrangements."""
    layout = seed % LAYOUTS
    ground = _details(layout, scene.place)
    c = Canvas(width, height)
    light = LIGHTS[scene.time]
    horizon = c.h * ground.uniform(0.56, 0.61)
    sky(c, light, horizon, _details(layout, scene.time))
    PLACES[scene.place](c, light, horizon, ground)
    if scene.time == "storm":
        rain(c, _details(layout, "rain"))
    if scene.subject != "none":
        place_subject(c, scene, light, _details(layout, scene.subject))
    return c.finish()


def _details(layout: int, part: str) -> np.random.Generator:
    """Return the chance that arranges one part of a picture, whatever the other parts are."""
    return np.random.default_rng([layout, crc32(part.encode())])


def place_subject(c: Canvas, scene: Scene, light: Light, rng: np.random.Generator) -> None:
    """Put the subject near the lower centre, on ground or water that suits it."""
    squeeze = 1 + 0.22 * (1 - c.unit / max(c.w, c.h))
    size = c.unit * rng.uniform(0.40, 0.45) * squeeze
    x = c.w / 2 + rng.uniform(-0.06, 0.06) * c.w
    y = c.h * 0.86 + rng.uniform(-0.015, 0.015) * c.h
    wet = scene.place in {"lake", "sea"}
    colour = body(COLOURS[scene.colour], light)
    if scene.subject in FLYING:
        y = c.h * (0.70 if scene.subject == "rocket" else 0.64) + rng.uniform(-0.03, 0.03) * c.h
    elif scene.subject == "boat":
        if not wet:
            c.ellipse(x, y, 0.78 * size, 0.13 * size, light.water[1])
            c.ellipse(x, y - 0.01 * size, 0.7 * size, 0.1 * size, mix(*light.water, 0.3))
        c.ellipse(x, y, 0.5 * size, 0.05 * size, mix(light.water[0], (255, 255, 255), 0.45))
    else:
        if wet:
            c.ellipse(x, y + 0.03 * size, 0.85 * size, 0.16 * size, lit((226, 200, 140), light))
            c.ellipse(x, y, 0.78 * size, 0.12 * size, lit((104, 170, 80), light))
        c.ellipse(x, y, 0.5 * size, 0.06 * size, lit((40, 60, 50), light))
    halo = mix(light.sky[2], (255, 255, 255), 0.3)
    c.glow(x, y - 0.5 * size, 0.8 * size, halo, 0.35)
    flip = float(rng.choice([-1.0, 1.0]))
    dark = scene.time in {"night", "storm", "dawn"}
    SUBJECTS[scene.subject](Local(c, x, y, size, flip, dark), colour)
