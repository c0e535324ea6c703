"""The outcome as a picture: throughput and latency by clients, and the mixed load."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from scripts.benchmark.course import Outcome
from scripts.benchmark.figures import Figures, figures
from scripts.benchmark.machine import Machine
from scripts.benchmark.rows import Mixed, Row, Steady
from scripts.chart import BLUE, DPI, GREY, INK, ORANGE, PALE, STYLE

COLOURS: Final = (BLUE, GREY, ORANGE)
"""In the order of the servers: the service first."""

BARS: Final = 0.8
"""Share of the place of a group that its bars take."""

LETTERS: Final = 17
"""Of the small print, in an inch."""


def draw(outcome: Outcome, machine: Machine, file: Path) -> None:
    """Write the plot as PNG."""
    rows = list(dict.fromkeys(each.row for each in outcome.turns if isinstance(each, Steady)))
    mixed = [each for each in outcome.turns if isinstance(each, Mixed)]
    columns = max(len(rows), 2 * len(mixed), 1)
    lines = 2 * bool(rows) + len(mixed)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(max(3.0 * columns, 7.0), 2.7 * lines + 0.8), layout="constrained")
        grid = figure.add_gridspec(lines, 2 * columns)
        for column, row in enumerate(rows):
            place = slice(
                2 * columns * column // len(rows), 2 * columns * (column + 1) // len(rows)
            )
            throughput, latency = (figure.add_subplot(grid[line, place]) for line in (0, 1))
            _throughput(throughput, outcome, row)
            _latency(latency, outcome, row)
        for number, point in enumerate(mixed):
            line = lines - len(mixed) + number
            for half, (kind, row) in enumerate((("short", point.short), ("long", point.long))):
                place = slice(columns * half, columns * (half + 1))
                axes = figure.add_subplot(grid[line, place])
                _beside(axes, outcome, point, row)
                axes.set_title(f"Mixed load, {kind}: {row.name}")
        handles = [Patch(color=colour) for colour in COLOURS]
        if len(outcome.servers) > 1:
            figure.legend(
                handles[: len(outcome.servers)],
                outcome.servers,
                loc="outside upper center",
                ncols=len(outcome.servers),
            )
        words = textwrap.fill(str(machine), round(figure.get_figwidth() * LETTERS))
        figure.supxlabel(words, fontsize=7, color=PALE)
        figure.savefig(file, dpi=DPI, format="png")


def _throughput(axes: Axes, outcome: Outcome, row: Row) -> None:
    _bars(axes, outcome, row, lambda found: found.pictures_per_second)
    axes.set_title(f"{row.name}: pictures a second")


def _latency(axes: Axes, outcome: Outcome, row: Row) -> None:
    places, found = _bars(axes, outcome, row, lambda found: found.p50)
    # From the median up to where 95 of 100 have their picture.
    above = [max(0.0, each.p95 - each.p50) for each in found]
    medians = [each.p50 for each in found]
    axes.errorbar(
        places, medians, yerr=[[0.0] * len(above), above], fmt="none", ecolor=INK, capsize=2
    )
    axes.set_title(f"{row.name}: seconds, p50 and p95")
    axes.set_xlabel("clients")


def _bars(axes: Axes, outcome: Outcome, row: Row, value: Any) -> tuple[list[float], list[Figures]]:
    points = [each for each in outcome.turns if isinstance(each, Steady) and each.row == row]
    width = BARS / len(outcome.servers)
    places: list[float] = []
    found: list[Figures] = []
    for index, server in enumerate(outcome.servers):
        own = [figures(outcome.turns[point][server]) for point in points]
        at = [group + (index - (len(outcome.servers) - 1) / 2) * width for group in _count(points)]
        axes.bar(at, [value(each) for each in own], width * 0.94, color=COLOURS[index])
        places += at
        found += own
    axes.set_xticks([*_count(points)], [str(point.clients) for point in points])
    return places, found


def _count(things: Sequence[object]) -> range:
    return range(len(things))


def _beside(axes: Axes, outcome: Outcome, point: Mixed, row: Row) -> None:
    """Draw every latency of one kind as a dot, and the median as a line."""
    for index, server in enumerate(outcome.servers):
        turns = outcome.turns[point][server]
        taken = sorted(
            each.seconds
            for turn in turns
            for each in turn.answers
            if each.row == row and not each.fault
        )
        # Spread by rank: dots of one server lie beside each other and stay apart.
        spread = [index + 0.5 * ((7 * rank) % 11 / 10 - 0.5) for rank in _count(taken)]
        axes.scatter(spread, taken, s=14, color=COLOURS[index], alpha=0.7, linewidths=0)
        if taken:
            middle = figures(turns, row).p50
            axes.hlines(middle, index - 0.38, index + 0.38, color=INK, linewidth=1.4)
            axes.annotate(
                f"{middle:.2f}",
                (index + 0.4, middle),
                textcoords="offset points",
                xytext=(2, 0),
                va="center",
            )
    axes.set_xticks([*_count(outcome.servers)], outcome.servers)
    axes.set_xlim(-0.6, len(outcome.servers) - 0.2)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("seconds")
