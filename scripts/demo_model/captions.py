"""Captions: varied English for a scene, some of whose attributes stay unsaid."""

# ruff: noqa: PLR2004 - speech is made of odds

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from .scene import Scene

Rng = np.random.Generator
UNSAID = "unsaid"
WORDS = tomllib.loads(Path(__file__).with_name("words.toml").read_text(encoding="utf-8"))
SILENCE = {"day": 0.5, "sunset": 0.2, "dawn": 0.25, "night": 0.12, "storm": 0.03}
"""How often each time stays unsaid: the natural ones most often."""


@dataclass(frozen=True)
class Caption:
    """A text, and the attributes that it says; the others are ``unsaid``."""

    text: str
    said: Scene


def caption(scene: Scene, rng: Rng) -> Caption:
    """Describe a scene in one of many ways, leaving out what people often leave out."""
    said = _said(scene, rng)
    text = (
        _without_subject(said, rng) if scene.subject == "none" else _with_subject(scene, said, rng)
    )
    if rng.random() < 0.25:
        text = _any("styles", rng).format(text)
    if rng.random() < 0.15:
        text = f"{text} {_any('fillers', rng)}" if rng.random() < 0.5 else _with_nonsense(text, rng)
    if rng.random() < 0.5:
        text = text[0].upper() + text[1:]
    if rng.random() < 0.1:
        text += _one((".", "!", ", "), rng)
    return Caption(text, said)


def _said(scene: Scene, rng: Rng) -> Scene:
    """Choose what stays unsaid, so that what is unsaid is most often the natural thing."""
    glowing = scene.subject == "mushrooms" and scene.time == "night"
    said = scene
    if rng.random() < (0.5 if glowing else SILENCE[scene.time]):
        said = replace(said, time=UNSAID)
    if scene.subject == "none":
        return said
    if rng.random() < 0.08:
        said = replace(said, place=UNSAID)
    natural = WORDS["natural"].get(scene.subject) == scene.colour
    if rng.random() < (0.6 if natural else 0.1):
        said = replace(said, colour=UNSAID)
    return said


def _with_subject(scene: Scene, said: Scene, rng: Rng) -> str:
    noun = _one(WORDS["subject"][scene.subject], rng)
    colour = "" if said.colour == UNSAID else _one(WORDS["colour"][said.colour], rng)
    adjective = _any("adjectives", rng) if rng.random() < 0.4 else ""
    if scene.subject == "mushrooms" and scene.time == "night" and rng.random() < 0.6:
        adjective = "glowing"
    described = _joined(adjective, colour, noun)
    if rng.random() < 0.15 and colour:
        described = f"{noun} that is {colour}" if rng.random() < 0.5 else f"{noun} in {colour}"
    if scene.subject == "mushrooms" and noun != "mushroom":
        described = _one(("", "some ", "three "), rng) + described
    else:
        described = _with_article(described, rng)
    when = "" if said.time == UNSAID else _of_time("phrases", said, rng)
    if said.place == UNSAID:
        return _joined(described, when)
    place = _one(WORDS["place"][said.place], rng)
    inside = f"{_one(('in', 'in', 'at', 'near', 'by', 'on', 'over'), rng)} {place}"
    form = rng.random()
    if form < 0.55:
        return _joined(described, inside, when)
    if form < 0.7 and when:
        return f"{when}, {described} {inside}"
    if form < 0.9:
        time = _of_time("adjectives", said, rng) if when else ""
        scenery = _joined(_mood(rng), time, _bare(place))
        return f"{_with_article(scenery, rng)} with {described}"
    return ", ".join(filter(None, (described, place, when)))


def _without_subject(said: Scene, rng: Rng) -> str:
    place = _one(WORDS["place"][said.place], rng)
    bare, mood, behind = _bare(place), _mood(rng), ""
    if said.place in {"lake", "sea", "hills", "garden", "city"} and rng.random() < 0.3:
        behind = f" with {_any('backdrops', rng)} in the background"
    scenery = _joined(mood, bare)
    if said.time == UNSAID:
        return _with_article(scenery, rng) + behind
    form = rng.random()
    if form < 0.4:
        sky = _joined(mood, _of_time("nouns", said, rng))
        where = _one(("over", "over", "in", "at", "above"), rng)
        return f"{_with_article(sky, rng)} {where} {place}{behind}"
    if form < 0.7:
        return f"{_with_article(scenery, rng)}{behind} {_of_time('phrases', said, rng)}"
    if form < 0.9:
        scenery = _joined(mood, _of_time("adjectives", said, rng), bare)
        return _with_article(scenery, rng) + behind
    return f"{bare}, {_of_time('nouns', said, rng)}"


def _with_article(words: str, rng: Rng) -> str:
    if rng.random() < 0.12:
        return words
    if rng.random() < 0.12:
        return f"the {words}"
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"


def _with_nonsense(text: str, rng: Rng) -> str:
    """Put an unknown word somewhere: the others still say what the image shows."""
    words = text.split(" ")
    unknown = "".join(_any("syllables", rng) for _ in range(int(rng.integers(1, 4))))
    words.insert(int(rng.integers(len(words) + 1)), unknown)
    return " ".join(words)


def _mood(rng: Rng) -> str:
    return _any("adjectives", rng) if rng.random() < 0.6 else ""


def _bare(place: str) -> str:
    return re.sub("^(an?|the) ", "", place)


def _joined(*words: str) -> str:
    return " ".join(filter(None, words))


def _of_time(kind: str, said: Scene, rng: Rng) -> str:
    return _one(WORDS["time"][said.time][kind], rng)


def _any(kind: str, rng: Rng) -> str:
    return _one(WORDS["any"][kind], rng)


def _one(choices: Sequence[str], rng: Rng) -> str:
    return choices[int(rng.integers(len(choices)))]
