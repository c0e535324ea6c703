"""Memory over generations, as an image."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from scripts.chart import BLUE, DPI, GREEN, ORANGE, PALE, PURPLE, RED, STYLE
from tests.drills.common.report import MIB
from tests.drills.stress.meter import Sample
from tests.drills.stress.outcome import Outcome
from tests.drills.stress.verdict import COUNTED

SHADE: Final = "#f6f2ea"
SIZE: Final = (10.0, 7.6)  # In inches.
COLOURS: Final = (ORANGE, BLUE, GREEN, PURPLE, RED)
PLACE: Final[Any] = {"loc": "lower right", "bbox_to_anchor": (1, 1)}
LEGEND: Final[Any] = {"fontsize": 8, "handlelength": 1, "columnspacing": 1}
COUNTS: Final = "Files and threads at rest"
CHARTS: Final[Mapping[str, Mapping[str, Callable[[Sample], float]]]] = {
    "Engine, MiB": {
        "RSS": lambda sample: sample.engine.rss / MIB,
        "anonymous": lambda sample: sample.engine.anonymous / MIB,
    },
    "HTTP process, MiB": {
        "RSS": lambda sample: sample.service.rss / MIB,
        "anonymous": lambda sample: sample.service.anonymous / MIB,
    },
    COUNTS: COUNTED,
}
"""Some curves over the same axes, by title."""


def draw(result: Outcome, file: Path) -> None:
    """Write all charts over each other as PNG, with a line between the phases."""
    last = result.samples[-1]
    words = f"{last.generations} generations in {last.seconds / 60:.0f} minutes"
    verdict = "flat" if result.passed else "NOT FLAT, or something went wrong"
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=SIZE, layout="constrained")
        figure.suptitle(f"Memory of the service: {words}: {verdict}")
        rows = zip(figure.subplots(len(CHARTS), sharex=True), CHARTS.items(), strict=True)
        for axes, (title, curves) in rows:
            axes.set_title(title)
            shown = [each for each in result.samples if title != COUNTS or each.resting]
            resting = [index for index, each in enumerate(shown) if each.resting]
            for (name, of), colour in zip(curves.items(), COLOURS, strict=False):
                dots: Any = {"marker": "o", "markersize": 3, "markevery": resting}
                points = [each.generations for each in shown], [of(each) for each in shown]
                axes.plot(*points, color=colour, linewidth=0.8, label=name, clip_on=False, **dots)
            axes.set_xlim(0, max(1, last.generations))
            axes.set_ylim(bottom=0)
            axes.legend(ncols=len(curves), **PLACE, **LEGEND)
            _phases(axes, result)
        figure.supxlabel("generations; dots: nothing in work", color=PALE, fontsize=9)
        figure.savefig(file, dpi=DPI, format="png")


def _phases(axes: Axes, result: Outcome) -> None:
    """Shade every other phase, and name them."""
    text: Any = {"textcoords": "offset points", "ha": "right", "color": PALE, "fontsize": 8}
    for number, name in enumerate(result.phases):
        inside = [each.generations for each in result.samples if each.phase == name]
        if number % 2:
            axes.axvspan(inside[0], inside[-1], color=SHADE, zorder=0)
            axes.axvline(inside[0], color=RED, linewidth=1)
        axes.annotate(name, (inside[-1], 0), xytext=(-6, 5), **text)
