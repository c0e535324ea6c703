"""Memory over generations, drawn with Pillow."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from PIL import Image, ImageDraw, ImageFont

from scripts.stress.meter import Sample
from scripts.stress.report import Outcome
from scripts.stress.verdict import COUNTED, MEMORY

SCALE: Final = 2
"""Drawn twice as large and reduced: Pillow's lines have no soft edges."""

WIDTH, HEIGHT = 1200, 1010
LEFT, RIGHT, TOP, BOTTOM = 78, 24, 60, 54
GAP: Final = 44
MIB: Final = 2**20

INK, PALE, GRID = "#1f2430", "#7a8190", "#e4e7ec"
SHADE: Final = "#f6f2ea"
BLUE, ORANGE, GREEN, RED, PURPLE = "#2463a8", "#c2571a", "#2e8540", "#b3262e", "#6b4fa0"


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One line of a chart."""

    name: str
    colour: str
    figure: Callable[[Sample], float]
    always: bool = True
    """Whether samples under load are shown, or those at rest alone."""


@dataclass(frozen=True, kw_only=True)
class Chart:
    """Some curves over the same axes."""

    title: str
    curves: tuple[Curve, ...]
    height: float
    """As a share of all."""


def _mib(name: str) -> Callable[[Sample], float]:
    figure, _ = MEMORY[name]
    return lambda sample: figure(sample) / MIB


CHARTS: Final = (
    Chart(
        title="Engine, MiB",
        height=0.36,
        curves=(
            Curve(name="RSS", colour=ORANGE, figure=_mib("engine, RSS")),
            Curve(name="anonymous", colour=BLUE, figure=_mib("engine, anonymous")),
        ),
    ),
    Chart(
        title="HTTP process, MiB",
        height=0.36,
        curves=(
            Curve(name="RSS", colour=ORANGE, figure=_mib("service, RSS")),
            Curve(name="anonymous", colour=BLUE, figure=_mib("service, anonymous")),
        ),
    ),
    Chart(
        title="Open files and threads, at rest",
        height=0.28,
        curves=tuple(
            Curve(name=name, colour=colour, figure=COUNTED[name], always=False)
            for name, colour in zip(COUNTED, (BLUE, GREEN, PURPLE, RED, ORANGE), strict=True)
        ),
    ),
)


class Drawing:
    """A surface with text, in pixels of the finished picture."""

    def __init__(self) -> None:
        self._image = Image.new("RGB", (WIDTH * SCALE, HEIGHT * SCALE), "white")
        self._pen = ImageDraw.Draw(self._image)

    def line(self, points: Sequence[tuple[float, float]], colour: str, width: float = 1) -> None:
        """Draw a line through points."""
        scaled = [(x * SCALE, y * SCALE) for x, y in points]
        self._pen.line(scaled, fill=colour, width=round(width * SCALE), joint="curve")

    def dot(self, x: float, y: float, colour: str) -> None:
        """Draw a small disc."""
        self._pen.circle((x * SCALE, y * SCALE), 2.6 * SCALE, fill=colour)

    def box(self, x0: float, y0: float, x1: float, y1: float, colour: str) -> None:
        """Fill a rectangle."""
        self._pen.rectangle((x0 * SCALE, y0 * SCALE, x1 * SCALE, y1 * SCALE), fill=colour)

    def text(
        self, x: float, y: float, words: str, *, size: float = 13, colour: str = INK, at: str = "lm"
    ) -> float:
        """Write words; return how wide they are."""
        font = ImageFont.load_default(size * SCALE)
        self._pen.text((x * SCALE, y * SCALE), words, fill=colour, font=font, anchor=at)
        return float(self._pen.textlength(words, font=font)) / SCALE

    def finished(self) -> Image.Image:
        """Return the picture with soft edges and few colours: a small file."""
        small = self._image.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)
        return small.quantize(64)


def draw(result: Outcome) -> Image.Image:
    """Draw all charts over each other, with a line between the phases."""
    drawing = Drawing()
    last = result.samples[-1]
    words = f"{last.generations} generations in {result.seconds / 60:.0f} minutes"
    verdict = "flat" if result.passed else "NOT FLAT, or something went wrong"
    drawing.text(LEFT, 24, f"Memory of the service: {words}: {verdict}", size=18)
    room = HEIGHT - TOP - BOTTOM - GAP * (len(CHARTS) - 1)
    top = float(TOP)
    for chart in CHARTS:
        bottom = top + room * chart.height
        _Axes(drawing, chart, result.samples, (top + 14, bottom)).draw()
        top = bottom + GAP
    middle = (LEFT + WIDTH - RIGHT) / 2
    drawing.text(middle, HEIGHT - 14, "generations; dots: nothing in work", colour=PALE, at="mm")
    return drawing.finished()


class _Axes:
    """One chart at its place."""

    def __init__(
        self,
        drawing: Drawing,
        chart: Chart,
        samples: Sequence[Sample],
        rows: tuple[float, float],
    ) -> None:
        self._drawing, self._chart, self._samples = drawing, chart, samples
        self._top, self._bottom = rows
        self._most_x = max(1, samples[-1].generations)
        highest = max(curve.figure(each) for curve in chart.curves for each in samples)
        self._step = _round_step(highest * 1.04 / 4)
        self._most_y = self._step * (int(highest * 1.04 / self._step) + 1)

    def draw(self) -> None:
        """Draw the grid, the curves and their names."""
        self._phases()
        self._grid()
        x = LEFT + self._drawing.text(LEFT, self._top - 14, self._chart.title, size=14) + 24
        for curve in self._chart.curves:
            self._drawing.box(x, self._top - 16, x + 14, self._top - 12, curve.colour)
            x += 20 + self._drawing.text(x + 20, self._top - 14, curve.name, colour=PALE) + 18
            self._curve(curve)

    def _place(self, x: float, y: float) -> tuple[float, float]:
        across = LEFT + (WIDTH - LEFT - RIGHT) * x / self._most_x
        return across, self._bottom - (self._bottom - self._top) * y / self._most_y

    def _phases(self) -> None:
        """Shade every other phase, and name them."""
        names = list(dict.fromkeys(each.phase for each in self._samples))
        for number, name in enumerate(names):
            inside = [each.generations for each in self._samples if each.phase == name]
            (x0, _), (x1, _) = self._place(inside[0], 0), self._place(inside[-1], 0)
            if number % 2:
                self._drawing.box(x0, self._top, x1, self._bottom, SHADE)
                self._drawing.line([(x0, self._top - 6), (x0, self._bottom)], RED, 1.5)
            self._drawing.text(x1 - 6, self._bottom - 12, name, colour=PALE, at="rm")

    def _grid(self) -> None:
        y = 0.0
        while y <= self._most_y + self._step / 2:
            _, row = self._place(0, y)
            self._drawing.line([(LEFT, row), (WIDTH - RIGHT, row)], GRID)
            self._drawing.text(LEFT - 8, row, f"{y:g}", colour=PALE, at="rm")
            y += self._step
        step = _round_step(self._most_x / 10)
        for count in range(int(self._most_x / step) + 1):
            column, _ = self._place(count * step, 0)
            words = f"{count * step:g}"
            self._drawing.text(column, self._bottom + 12, words, colour=PALE, at="mm")

    def _curve(self, curve: Curve) -> None:
        shown = [each for each in self._samples if curve.always or each.resting]
        points = [self._place(each.generations, curve.figure(each)) for each in shown]
        self._drawing.line(points, curve.colour, 1 if curve.always else 1.6)
        for each, (x, y) in zip(shown, points, strict=True):
            if each.resting:
                self._drawing.dot(x, y, curve.colour)


def _round_step(about: float) -> float:
    """Return a step of a grid: 1, 2 or 5 times a power of ten."""
    power = 1.0
    while power * 10 <= about:
        power *= 10
    return next(power * times for times in (1, 2, 5, 10) if power * times >= about)
