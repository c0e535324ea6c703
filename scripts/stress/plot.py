"""Memory over generations, as a picture."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from scripts.chart import BLUE, DPI, GREEN, ORANGE, PALE, PURPLE, RED, STYLE
from scripts.stress.meter import Sample
from scripts.stress.report import Outcome
from scripts.stress.verdict import COUNTED, MEMORY

SHADE: Final = "#f6f2ea"
MIB: Final = 2**20
SIZE: Final = (10.0, 7.6)
"""In inches."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One line of a chart."""

    name: str
    colour: str
    figure: Callable[[Sample], float]
    always: bool = True
    """Whether samples under load are shown, or those at rest alone."""


def _mib(name: str) -> Callable[[Sample], float]:
    figure, _ = MEMORY[name]
    return lambda sample: figure(sample) / MIB


def _memory(process: str) -> tuple[Curve, ...]:
    return (
        Curve(name="RSS", colour=ORANGE, figure=_mib(f"{process}, RSS")),
        Curve(name="anonymous", colour=BLUE, figure=_mib(f"{process}, anonymous")),
    )


CHARTS: Final = {
    "Engine, MiB": _memory("engine"),
    "HTTP process, MiB": _memory("service"),
    "Files and threads at rest": tuple(
        Curve(name=name, colour=colour, figure=COUNTED[name], always=False)
        for name, colour in zip(COUNTED, (BLUE, GREEN, PURPLE, RED, ORANGE), strict=True)
    ),
}
"""Some curves over the same axes, by title."""


def draw(result: Outcome, file: Path) -> None:
    """Write all charts over each other as PNG, with a line between the phases."""
    last = result.samples[-1]
    words = f"{last.generations} generations in {result.seconds / 60:.0f} minutes"
    verdict = "flat" if result.passed else "NOT FLAT, or something went wrong"
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=SIZE, layout="constrained")
        figure.suptitle(f"Memory of the service: {words}: {verdict}")
        for axes, (title, curves) in zip(
            figure.subplots(len(CHARTS), sharex=True), CHARTS.items(), strict=True
        ):
            axes.set_title(title)
            for curve in curves:
                _draw(axes, result, curve)
            axes.set_xlim(0, max(1, last.generations))
            axes.set_ylim(bottom=0)
            axes.legend(
                loc="lower right",
                bbox_to_anchor=(1, 1),
                ncols=len(curves),
                fontsize=8,
                handlelength=1,
                columnspacing=1,
            )
            _phases(axes, result)
        figure.supxlabel("generations; dots: nothing in work", color=PALE, fontsize=9)
        figure.savefig(file, dpi=DPI, format="png")


def _draw(axes: Axes, result: Outcome, curve: Curve) -> None:
    shown = [each for each in result.samples if curve.always or each.resting]
    axes.plot(
        [each.generations for each in shown],
        [curve.figure(each) for each in shown],
        color=curve.colour,
        linewidth=0.8,
        label=curve.name,
        marker="o",
        markersize=3,
        clip_on=False,
        markevery=[index for index, each in enumerate(shown) if each.resting],
    )


def _phases(axes: Axes, result: Outcome) -> None:
    """Shade every other phase, and name them."""
    for number, name in enumerate(dict.fromkeys(each.phase for each in result.samples)):
        inside = [each.generations for each in result.samples if each.phase == name]
        if number % 2:
            axes.axvspan(inside[0], inside[-1], color=SHADE, zorder=0)
            axes.axvline(inside[0], color=RED, linewidth=1)
        axes.annotate(
            name,
            (inside[-1], 0),
            textcoords="offset points",
            xytext=(-6, 5),
            ha="right",
            color=PALE,
            fontsize=8,
        )
