"""The eleven subjects, each in local coordinates one unit high."""

# ruff: noqa: PLR2004 - drawing is made of proportions

from collections.abc import Callable

from .canvas import Canvas, Colour, darker, lighter, mix

WARM: Colour = (255, 222, 120)
INK: Colour = (36, 30, 54)
CREAM: Colour = (250, 236, 208)
WOOD: Colour = (112, 72, 46)


def cabin(p: Canvas, colour: Colour) -> None:
    """Draw a log cabin with lit windows and smoke."""
    for x, y, r in ((0.34, 0.98, 0.06), (0.42, 1.1, 0.075), (0.38, 1.24, 0.09)):
        p.oval(x, y, r, r * 0.8, (226, 226, 232))
    p.box(0.22, 0.5, 0.36, 0.9, darker(WOOD, 0.3))
    p.box(-0.44, 0, 0.44, 0.48, colour)
    for y in (0.12, 0.24, 0.36):
        p.box(-0.44, y, 0.44, y + 0.018, darker(colour, 0.3))
    p.poly([(-0.44, 0.46), (0, 0.84), (0.44, 0.46)], colour)
    roof = darker(colour, 0.5)
    p.poly([(-0.58, 0.42), (0, 0.92), (0.58, 0.42), (0.46, 0.4), (0, 0.78), (-0.46, 0.4)], roof)
    p.box(-0.1, 0, 0.1, 0.33, darker(colour, 0.62))
    for x in (-0.27, 0.27):
        p.glow(x, 0.24, 0.26, WARM, 0.8 if p.light.dark else 0.3)
        p.box(x - 0.095, 0.14, x + 0.095, 0.34, darker(colour, 0.6))
        p.box(x - 0.072, 0.163, x + 0.072, 0.317, WARM)


def robot(p: Canvas, colour: Colour) -> None:
    """Draw a friendly robot with a big head."""
    shade, steel = darker(colour, 0.35), (176, 186, 204)
    for s in (-1, 1):
        p.box(s * 0.16 - 0.07, 0.05, s * 0.16 + 0.07, 0.2, steel)
        p.box(s * 0.17 - 0.11, 0, s * 0.17 + 0.11, 0.08, shade, 0.03)
        p.box(s * 0.36 - 0.06, 0.2, s * 0.36 + 0.06, 0.48, steel, 0.06)
        p.oval(s * 0.36, 0.2, 0.085, 0.085, shade)
    p.box(-0.29, 0.15, 0.29, 0.53, colour, 0.08)
    p.box(-0.15, 0.23, 0.15, 0.42, shade, 0.03)
    p.oval(0, 0.325, 0.06, 0.06, (255, 110, 110) if colour[0] < 200 else (110, 230, 255))
    p.box(-0.03, 0.9, 0.03, 1.0, steel)
    p.oval(0, 1.02, 0.06, 0.06, shade)
    for s in (-1, 1):
        p.box(s * 0.36 - 0.07, 0.64, s * 0.36 + 0.07, 0.82, shade, 0.03)
    p.box(-0.36, 0.54, 0.36, 0.93, colour, 0.12)
    p.box(-0.27, 0.61, 0.27, 0.85, INK, 0.09)
    for s in (-1, 1):
        p.oval(s * 0.13, 0.745, 0.065, 0.07, (120, 244, 255))
    p.box(-0.08, 0.64, 0.08, 0.665, (120, 244, 255), 0.01)


def mushrooms(p: Canvas, colour: Colour) -> None:
    """Draw three spotted mushrooms that glow."""
    glow = lighter(colour, 0.35)
    p.glow(0, 0.5, 0.95, glow, 0.75 if p.light.dark else 0.4)
    for x, s in ((-0.36, 0.55), (0.38, 0.62), (0.0, 1.0)):
        stem = mix(CREAM, glow, 0.2)
        m = p.local(*p.at(x, 0), s * p.across, s * p.down)
        m.poly([(-0.1, 0), (-0.075, 0.55), (0.075, 0.55), (0.1, 0)], stem)
        m.poly([(0.02, 0), (0.02, 0.55), (0.075, 0.55), (0.1, 0)], darker(stem, 0.15))
        m.oval(0, 0.5, 0.36, 0.07, darker(colour, 0.35))
        m.dome(0, 0.49, 0.37, 0.46, colour)
        spot = lighter(colour, 0.8) if sum(colour) < 640 else (238, 150, 170)
        for dx, dy, r in ((-0.2, 0.62, 0.06), (0.02, 0.78, 0.075), (0.2, 0.6, 0.055)):
            m.oval(dx, dy, r, r * 0.85, spot)


def boat(p: Canvas, colour: Colour) -> None:
    """Draw a sailing boat with sails and hull in its colour."""
    p.box(-0.015, 0.2, 0.015, 1.02, darker(WOOD, 0.2))
    p.poly([(0.03, 0.3), (0.03, 1.0), (0.46, 0.3)], colour)
    p.poly([(-0.03, 0.3), (-0.03, 0.88), (-0.34, 0.3)], lighter(colour, 0.3))
    p.poly([(-0.46, 0.24), (0.52, 0.24), (0.36, 0.02), (-0.32, 0.02)], darker(colour, 0.3))
    p.poly([(-0.48, 0.26), (0.54, 0.26), (0.51, 0.2), (-0.45, 0.2)], CREAM)


def balloon(p: Canvas, colour: Colour) -> None:
    """Draw a hot-air balloon with light stripes."""
    for x in (-0.1, 0.1):
        p.line([(x * 2.2, 0.4), (x, 0.15)], darker(WOOD, 0.2), 0.016)
    p.box(-0.11, 0, 0.11, 0.16, WOOD, 0.03)
    p.poly([(-0.38, 0.52), (0.38, 0.52), (0.13, 0.26), (-0.13, 0.26)], colour)
    p.oval(0, 0.65, 0.42, 0.4, colour)
    pale = lighter(colour, 0.5) if sum(colour) < 640 else darker(colour, 0.18)
    p.oval(0, 0.65, 0.17, 0.4, pale)
    p.poly([(-0.15, 0.5), (0.15, 0.5), (0.05, 0.26), (-0.05, 0.26)], pale)
    p.oval(0, 0.65, 0.055, 0.4, colour)


def castle(p: Canvas, colour: Colour) -> None:
    """Draw a castle of three towers with pointed roofs."""
    shade, roof = darker(colour, 0.25), darker(colour, 0.5)
    p.box(-0.12, 0.3, 0.12, 0.72, shade)
    p.poly([(-0.17, 0.72), (0, 1.08), (0.17, 0.72)], roof)
    p.box(-0.4, 0, 0.4, 0.4, colour)
    for x in (-0.24, -0.08, 0.08, 0.24):
        p.box(x - 0.045, 0.4, x + 0.045, 0.47, colour)
    for s in (-1, 1):
        p.box(s * 0.4 - 0.12, 0, s * 0.4 + 0.12, 0.6, colour)
        p.box(s * 0.4 + 0.04, 0, s * 0.4 + 0.12, 0.6, shade)
        p.poly([(s * 0.4 - 0.16, 0.6), (s * 0.4, 0.92), (s * 0.4 + 0.16, 0.6)], roof)
        p.box(s * 0.4 - 0.035, 0.38, s * 0.4 + 0.035, 0.5, WARM if p.light.dark else INK, 0.03)
    p.box(-0.035, 0.54, 0.035, 0.65, WARM if p.light.dark else INK, 0.03)
    p.box(-0.11, 0, 0.11, 0.14, INK)
    p.dome(0, 0.14, 0.11, 0.12, INK)


def tree(p: Canvas, colour: Colour) -> None:
    """Draw a broad tree with a round crown."""
    p.poly([(-0.11, 0), (-0.06, 0.45), (0.06, 0.45), (0.11, 0)], WOOD)
    shade = darker(colour, 0.25)
    p.oval(0.04, 0.62, 0.42, 0.34, shade)
    for x, y, r in ((-0.22, 0.58, 0.25), (0.2, 0.6, 0.24), (0, 0.78, 0.29)):
        p.oval(x, y, r, r, colour)
    p.oval(-0.1, 0.84, 0.11, 0.09, lighter(colour, 0.35))


def flower(p: Canvas, colour: Colour) -> None:
    """Draw one tall flower with six petals and two leaves."""
    leaf = (62, 150, 66)
    p.line([(0, 0), (0, 0.6)], leaf, 0.055)
    p.poly([(0, 0.1), (-0.2, 0.32), (-0.34, 0.3), (-0.2, 0.14)], leaf)
    p.poly([(0, 0.14), (0.2, 0.38), (0.34, 0.36), (0.2, 0.18)], darker(leaf, 0.15))
    around = ((0.24, 0.0), (0.12, 0.21), (-0.12, 0.21), (-0.24, 0.0), (-0.12, -0.21), (0.12, -0.21))
    for dx, dy in around:
        p.oval(dx, 0.72 + dy, 0.155, 0.155, colour)
    for dx, dy in around:
        p.oval(dx * 0.7, 0.72 + dy * 0.7, 0.1, 0.1, darker(colour, 0.12))
    brown = colour[0] > 210 and colour[1] > 120 and colour[2] < 120
    p.oval(0, 0.72, 0.13, 0.13, (104, 62, 30) if brown else (255, 208, 64))


def cat(p: Canvas, colour: Colour) -> None:
    """Draw a sitting cat that looks at you."""
    shade = darker(colour, 0.22)
    p.line([(0.2, 0.08), (0.42, 0.1), (0.5, 0.26), (0.46, 0.44)], shade, 0.1)
    p.oval(0.46, 0.45, 0.05, 0.05, shade)
    p.oval(0, 0.26, 0.31, 0.28, colour)
    p.box(-0.31, 0, 0.31, 0.2, colour, 0.09)
    p.oval(0, 0.22, 0.15, 0.2, lighter(colour, 0.4))
    for s in (-1, 1):
        p.poly([(s * 0.32, 0.66), (s * 0.3, 1.02), (s * 0.06, 0.84)], colour)
        p.poly([(s * 0.27, 0.74), (s * 0.265, 0.93), (s * 0.13, 0.82)], (255, 170, 180))
    p.oval(0, 0.65, 0.35, 0.28, colour)
    for s in (-1, 1):
        p.oval(s * 0.15, 0.67, 0.08, 0.09, (248, 240, 150))
        p.oval(s * 0.15, 0.67, 0.035, 0.075, INK)
    p.poly([(-0.05, 0.57), (0.05, 0.57), (0, 0.51)], (255, 140, 160))


def dragon(p: Canvas, colour: Colour) -> None:
    """Draw a sitting dragon with spread wings."""
    wing, belly = darker(colour, 0.35), lighter(colour, 0.5)
    tips = ((0.1, 0.42), (0.3, 0.9), (0.68, 0.98), (0.62, 0.72), (0.7, 0.5))
    joints = ((0.52, 0.5), (0.46, 0.32), (0.32, 0.38), (0.16, 0.22))
    for s in (-1, 1):
        p.poly([(s * x, y) for x, y in tips + joints], wing)
    p.line([(0.1, 0.08), (0.4, 0.06), (0.56, 0.16)], colour, 0.11)
    p.poly([(0.5, 0.2), (0.68, 0.3), (0.62, 0.1)], wing)
    p.oval(0, 0.28, 0.25, 0.28, colour)
    p.oval(0, 0.25, 0.15, 0.22, belly)
    for s in (-1, 1):
        p.oval(s * 0.19, 0.05, 0.12, 0.07, colour)
        p.poly([(s * 0.1, 0.88), (s * 0.2, 1.08), (s * 0.22, 0.82)], CREAM)
    p.box(-0.12, 0.4, 0.12, 0.7, colour)
    p.oval(0, 0.76, 0.25, 0.18, colour)
    p.oval(0, 0.67, 0.19, 0.11, belly)
    for s in (-1, 1):
        p.oval(s * 0.13, 0.81, 0.06, 0.065, (255, 244, 150))
        p.oval(s * 0.12, 0.81, 0.025, 0.05, INK)
        p.oval(s * 0.06, 0.68, 0.02, 0.02, INK)


def rocket(p: Canvas, colour: Colour) -> None:
    """Draw a rocket that climbs on its flame."""
    shade = darker(colour, 0.35)
    p.glow(0, 0.08, 0.42, (255, 190, 90), 0.85)
    p.poly([(-0.12, 0.24), (-0.1, 0.08), (0, -0.14), (0.1, 0.08), (0.12, 0.24)], (255, 150, 40))
    p.poly([(-0.06, 0.24), (0, 0.02), (0.06, 0.24)], (255, 238, 130))
    for s in (-1, 1):
        p.poly([(s * 0.16, 0.5), (s * 0.38, 0.26), (s * 0.36, 0.14), (s * 0.14, 0.24)], shade)
    side = [(0.13, 0.22), (0.21, 0.45), (0.2, 0.72), (0.12, 0.92), (0, 1.08)]
    p.poly([(-x, y) for x, y in side] + side[-2::-1], colour)
    p.poly([(-0.145, 0.87), (0, 1.08), (0.145, 0.87)], shade)
    p.box(-0.19, 0.33, 0.19, 0.38, shade)
    p.oval(0, 0.64, 0.125, 0.125, lighter(shade, 0.75))
    p.oval(0, 0.64, 0.09, 0.09, (110, 210, 245))


_ALL = (cabin, robot, mushrooms, boat, balloon, castle, tree, flower, cat, dragon, rocket)
SUBJECTS: dict[str, Callable[[Canvas, Colour], None]] = {draw.__name__: draw for draw in _ALL}
FLYING = frozenset({"balloon", "rocket"})
