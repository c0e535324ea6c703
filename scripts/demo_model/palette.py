"""Colours: the five lights of day, the ten subject colours, and mixing."""

from dataclasses import dataclass

Colour = tuple[int, int, int]

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


@dataclass(frozen=True)
class Light:
    """The sky and the ambient colour of one time of day."""

    time: str
    sky: tuple[Colour, Colour, Colour]
    ambient: tuple[float, float, float]
    haze: Colour
    disc: Colour
    water: tuple[Colour, Colour]


LIGHTS: dict[str, Light] = {
    "sunset": Light(
        "sunset",
        ((86, 42, 124), (240, 92, 78), (255, 196, 92)),
        (0.94, 0.66, 0.60),
        (238, 124, 92),
        (255, 240, 170),
        ((250, 160, 92), (122, 56, 116)),
    ),
    "night": Light(
        "night",
        ((8, 12, 44), (22, 30, 88), (62, 66, 146)),
        (0.40, 0.48, 0.76),
        (44, 52, 116),
        (250, 246, 218),
        ((52, 62, 140), (14, 22, 66)),
    ),
    "day": Light(
        "day",
        ((44, 130, 230), (116, 190, 248), (214, 240, 252)),
        (1.0, 1.0, 1.0),
        (178, 214, 240),
        (255, 232, 96),
        ((96, 192, 232), (28, 112, 190)),
    ),
    "dawn": Light(
        "dawn",
        ((150, 134, 216), (244, 170, 206), (255, 228, 208)),
        (0.92, 0.78, 0.90),
        (236, 190, 216),
        (255, 250, 236),
        ((246, 196, 214), (140, 124, 196)),
    ),
    "storm": Light(
        "storm",
        ((40, 50, 54), (80, 96, 94), (134, 148, 136)),
        (0.52, 0.60, 0.56),
        (100, 116, 110),
        (246, 250, 226),
        ((104, 124, 120), (40, 56, 60)),
    ),
}


def mix(a: Colour, b: Colour, share: float) -> Colour:
    """Blend two colours, share 0 giving the first and 1 the second."""
    r, g, bl = (round(x + (y - x) * share) for x, y in zip(a, b, strict=True))
    return r, g, bl


def lit(colour: Colour, light: Light, depth: float = 0.0) -> Colour:
    """Colour under a light, faded into haze by depth 0 (near) to 1 (far)."""
    r, g, b = (round(c * a) for c, a in zip(colour, light.ambient, strict=True))
    return mix((r, g, b), light.haze, depth)


def body(colour: Colour, light: Light) -> Colour:
    """Colour of a subject: only lightly tinted, so that it stays readable."""
    return mix(colour, lit(colour, light), 0.25)


def darker(colour: Colour, share: float = 0.3) -> Colour:
    """Shade a colour towards a deep blue-violet."""
    return mix(colour, (20, 12, 40), share)


def lighter(colour: Colour, share: float = 0.35) -> Colour:
    """Tint a colour towards warm white."""
    return mix(colour, (255, 250, 240), share)
