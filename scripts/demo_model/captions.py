"""Captions: varied English for a scene, some of whose attributes stay unsaid."""

# ruff: noqa: PLR2004 - speech is made of odds

from dataclasses import dataclass, replace

import numpy as np

from .scene import Scene

Rng = np.random.Generator
UNSAID = "unsaid"

TIME_PHRASES = {
    "sunset": (
        "at sunset",
        "in the evening",
        "at dusk",
        "in the golden hour",
        "at the end of the day",
    ),
    "night": (
        "at night",
        "at midnight",
        "under the stars",
        "in the moonlight",
        "under a full moon",
    ),
    "day": ("on a sunny day", "at noon", "in daylight", "under a blue sky", "in the afternoon"),
    "dawn": ("at dawn", "at sunrise", "in the early morning", "at daybreak", "at first light"),
    "storm": (
        "in a storm",
        "in the rain",
        "during a thunderstorm",
        "with lightning",
        "in bad weather",
    ),
}
TIME_NOUNS = {
    "sunset": ("sunset", "evening", "dusk", "twilight"),
    "night": ("night", "starry night", "moonlit night", "starry sky", "midnight"),
    "day": ("sunny day", "summer day", "bright day", "clear blue sky", "afternoon"),
    "dawn": ("sunrise", "dawn", "morning", "early morning"),
    "storm": ("storm", "thunderstorm", "rainstorm", "stormy sky", "lightning storm"),
}
TIME_ADJECTIVES = {
    "sunset": ("sunset", "evening", "golden"),
    "night": ("moonlit", "starry", "nighttime", "dark"),
    "day": ("sunny", "sunlit", "bright"),
    "dawn": ("morning", "sunrise", "dawn"),
    "storm": ("stormy", "rainy", "thundery"),
}
PLACE_NOUNS = {
    "mountains": (
        "mountains",
        "the mountains",
        "snowy mountains",
        "a mountain range",
        "rocky peaks",
        "the alps",
    ),
    "hills": (
        "hills",
        "green hills",
        "rolling hills",
        "a meadow",
        "the countryside",
        "a grassy field",
        "a valley",
    ),
    "lake": ("a lake", "a calm lake", "the lake", "a mountain lake", "a pond", "a quiet lake"),
    "sea": ("the sea", "the ocean", "an island", "the coast", "a beach", "the waves"),
    "desert": ("the desert", "a desert", "sand dunes", "a sandy desert", "a canyon"),
    "forest": ("a forest", "the woods", "the forest", "a pine forest", "a woodland", "a jungle"),
    "city": ("a city", "the city", "a town", "a city street", "a big city", "downtown"),
    "garden": ("a garden", "a flower garden", "the garden", "a park", "a backyard"),
    "snow": (
        "the snow",
        "a snowy landscape",
        "a snowy field",
        "winter",
        "a winter wonderland",
        "the arctic",
    ),
}
SUBJECT_NOUNS = {
    "cabin": ("cabin", "cottage", "hut", "wooden house", "log cabin", "little house", "house"),
    "robot": ("robot", "android", "little robot", "droid"),
    "mushrooms": ("mushrooms", "toadstools", "fungi", "mushroom"),
    "boat": ("boat", "sailboat", "sailing boat", "ship", "yacht"),
    "balloon": ("hot air balloon", "balloon", "hot-air balloon"),
    "castle": ("castle", "fortress", "palace", "fairy tale castle"),
    "tree": ("tree", "oak", "old tree", "lone tree", "apple tree"),
    "flower": ("flower", "blossom", "big flower", "sunflower", "tulip", "rose"),
    "cat": ("cat", "kitten", "kitty", "house cat"),
    "dragon": ("dragon", "baby dragon", "little dragon"),
    "rocket": ("rocket", "spaceship", "space rocket", "rocket ship"),
}
COLOUR_WORDS = {
    "red": ("red", "crimson", "scarlet", "bright red"),
    "orange": ("orange", "bright orange"),
    "yellow": ("yellow", "golden", "lemon yellow"),
    "green": ("green", "emerald", "dark green"),
    "blue": ("blue", "bright blue", "navy"),
    "purple": ("purple", "violet"),
    "pink": ("pink", "rosy", "hot pink"),
    "white": ("white", "snow white"),
    "black": ("black", "jet black"),
    "brown": ("brown", "chocolate brown"),
}
NATURAL = {
    "cabin": "brown",
    "tree": "green",
    "mushrooms": "red",
    "robot": "blue",
    "dragon": "green",
}
"""The colour a subject has when nobody says one, more often than others."""

ADJECTIVES = (
    "beautiful", "lovely", "pretty", "cute", "charming", "peaceful", "serene", "quiet", "cozy",
    "magical", "enchanted", "dreamy", "mysterious", "epic", "majestic", "tiny", "big", "small",
    "old", "wonderful", "colourful", "minimal", "stylized", "happy", "lonely", "fantastic",
)  # fmt: skip
STYLES = (
    "a poster of {}", "an illustration of {}", "{}, flat design", "{}, vector art",
    "a picture of {}", "a painting of {}", "{}, highly detailed", "{}, digital art",
    "{} in flat colours", "a drawing of {}", "{}, 4k", "{}, trending", "an image of {}",
    "{}, masterpiece, best quality",
)  # fmt: skip
BACKDROPS = ("mountains", "hills", "snowy peaks", "trees", "a pine forest", "clouds")
SYLLABLES = (
    "ba",
    "zor",
    "qui",
    "lem",
    "tra",
    "vex",
    "no",
    "mi",
    "dul",
    "shar",
    "plo",
    "gre",
    "ik",
    "un",
)
FILLERS = (
    "and friends", "by an unknown artist", "for my grandmother", "with love", "number seven",
    "in the style of an old master", "made in france", "very nice", "wow", "please",
)  # fmt: skip


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
        text = _one(STYLES, rng).format(text)
    if rng.random() < 0.15:
        text = f"{text} {_one(FILLERS, rng)}" if rng.random() < 0.5 else _with_nonsense(text, rng)
    if rng.random() < 0.5:
        text = text[0].upper() + text[1:]
    if rng.random() < 0.1:
        text += _one((".", "!", ", "), rng)
    return Caption(text, said)


def _said(scene: Scene, rng: Rng) -> Scene:
    """Choose what stays unsaid, so that what is unsaid is most often the natural thing."""
    silence = {"day": 0.5, "sunset": 0.2, "dawn": 0.25, "night": 0.12, "storm": 0.03}[scene.time]
    if scene.subject == "mushrooms" and scene.time == "night":
        silence = 0.5
    said = scene
    if rng.random() < silence:
        said = replace(said, time=UNSAID)
    if scene.subject != "none" and rng.random() < 0.08:
        said = replace(said, place=UNSAID)
    natural = NATURAL.get(scene.subject) == scene.colour
    if scene.subject != "none" and rng.random() < (0.6 if natural else 0.1):
        said = replace(said, colour=UNSAID)
    return said


def _with_subject(scene: Scene, said: Scene, rng: Rng) -> str:
    noun = _one(SUBJECT_NOUNS[scene.subject], rng)
    colour = "" if said.colour == UNSAID else _one(COLOUR_WORDS[said.colour], rng)
    adjective = _one(ADJECTIVES, rng) if rng.random() < 0.4 else ""
    if scene.subject == "mushrooms" and scene.time == "night" and rng.random() < 0.6:
        adjective = "glowing"
    described = " ".join(word for word in (adjective, colour, noun) if word)
    if rng.random() < 0.15 and colour:
        described = f"{noun} that is {colour}" if rng.random() < 0.5 else f"{noun} in {colour}"
    plural = scene.subject == "mushrooms" and noun != "mushroom"
    if plural:
        described = f"{_one(('', 'some ', 'three '), rng)}{described}"
    else:
        described = f"{_article(described, rng)}{described}"
    when = "" if said.time == UNSAID else _one(TIME_PHRASES[said.time], rng)
    if said.place == UNSAID:
        return f"{described} {when}".strip()
    place = _one(PLACE_NOUNS[said.place], rng)
    inside = f"{_one(('in', 'in', 'at', 'near', 'by', 'on', 'over'), rng)} {place}"
    form = rng.random()
    if form < 0.55:
        return f"{described} {inside} {when}".strip()
    if form < 0.7 and when:
        return f"{when}, {described} {inside}"
    if form < 0.9:
        bare = place.removeprefix("a ").removeprefix("an ").removeprefix("the ")
        time = _one(TIME_ADJECTIVES[said.time], rng) if when else ""
        mood = _one(ADJECTIVES, rng) if rng.random() < 0.6 else ""
        scenery = " ".join(word for word in (mood, time, bare) if word)
        return f"{_article(scenery, rng)}{scenery} with {described}"
    return ", ".join(part for part in (described, place, when) if part)


def _without_subject(said: Scene, rng: Rng) -> str:
    place = _one(PLACE_NOUNS[said.place], rng)
    bare = place.removeprefix("a ").removeprefix("an ").removeprefix("the ")
    mood = _one(ADJECTIVES, rng) if rng.random() < 0.6 else ""
    behind = ""
    if said.place in {"lake", "sea", "hills", "garden", "city"} and rng.random() < 0.3:
        behind = f" with {_one(BACKDROPS, rng)} in the background"
    if said.time == UNSAID:
        scenery = f"{mood} {bare}".strip()
        return f"{_article(scenery, rng)}{scenery}{behind}"
    form = rng.random()
    if form < 0.4:
        sky = f"{mood} {_one(TIME_NOUNS[said.time], rng)}".strip()
        where = _one(("over", "over", "in", "at", "above"), rng)
        return f"{_article(sky, rng)}{sky} {where} {place}{behind}"
    if form < 0.7:
        scenery = f"{mood} {bare}".strip()
        return f"{_article(scenery, rng)}{scenery}{behind} {_one(TIME_PHRASES[said.time], rng)}"
    if form < 0.9:
        scenery = f"{mood} {_one(TIME_ADJECTIVES[said.time], rng)} {bare}".strip()
        return f"{_article(scenery, rng)}{scenery}{behind}"
    return f"{bare}, {_one(TIME_NOUNS[said.time], rng)}"


def _article(words: str, rng: Rng) -> str:
    if rng.random() < 0.12:
        return ""
    if rng.random() < 0.12:
        return "the "
    return "an " if words[0] in "aeiou" else "a "


def _with_nonsense(text: str, rng: Rng) -> str:
    """Put an unknown word somewhere: the others still say what the picture shows."""
    words = text.split(" ")
    unknown = "".join(_one(SYLLABLES, rng) for _ in range(int(rng.integers(1, 4))))
    words.insert(int(rng.integers(len(words) + 1)), unknown)
    return " ".join(words)


def _one(choices: tuple[str, ...], rng: Rng) -> str:
    return choices[int(rng.integers(len(choices)))]
