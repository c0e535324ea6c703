"""The outcome as an image: throughput and latency by clients, and the mixed load."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from scripts.benchmark.machine import line
from scripts.benchmark.report import P50, RATE
from scripts.chart import BLUE, DPI, GREY, INK, ORANGE, PALE, STYLE

COLOURS: Final = (BLUE, GREY, ORANGE)
"""In the order of the servers: the service first."""

BARS: Final = 0.8
"""Share of the place of a group that its bars take."""

LETTERS: Final = 17
"""Of the small print, in an inch."""

Points = Sequence[Mapping[str, Any]]


def draw(found: Mapping[str, Any], file: Path) -> None:
    """Write the plot of an outcome, as ``report.json`` returns it, as PNG."""
    steady: dict[str, list[Mapping[str, Any]]] = {}
    mixed = [point for point in found["points"] if len(point["rows"]) > 1]
    for point in found["points"]:
        if len(point["rows"]) == 1:
            steady.setdefault(point["rows"][0], []).append(point)
    columns = max(len(steady), 2 * len(mixed), 1)
    lines = 2 * bool(steady) + len(mixed)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(max(3.0 * columns, 7.0), 2.7 * lines + 0.8), layout="constrained")
        grid = figure.add_gridspec(lines, 2 * columns)
        for column, (name, points) in enumerate(steady.items()):
            ends = [2 * columns * place // len(steady) for place in (column, column + 1)]
            throughput, latency = (figure.add_subplot(grid[n, slice(*ends)]) for n in (0, 1))
            _bars(throughput, points, RATE)
            throughput.set_title(f"{name}: images a second")
            _bars(latency, points, P50)
            latency.set_title(f"{name}: seconds, p50 and p95")
            latency.set_xlabel("clients")
        for number, point in enumerate(mixed, lines - len(mixed)):
            for half, part in enumerate(("short", "long")):
                axes = figure.add_subplot(grid[number, columns * half : columns * (half + 1)])
                _dots(axes, point, part, point["rows"][half])
                axes.set_title(f"Mixed load, {part}: {point['rows'][half]}")
        if len(servers := found["servers"]) > 1:
            handles = [Patch(color=colour) for colour in COLOURS[: len(servers)]]
            figure.legend(handles, servers, loc="outside upper center", ncols=len(servers))
        words = textwrap.fill(line(found["machine"]), round(figure.get_figwidth() * LETTERS))
        figure.supxlabel(words, fontsize=7, color=PALE)
        figure.savefig(file, dpi=DPI, format="png")


def _bars(axes: Axes, points: Points, value: str) -> None:
    """Draw a group of bars for each number of clients; of medians with what is above them."""
    count = len(points[0]["servers"])
    width = BARS / count
    for index in range(count):
        own = [point["servers"][index]["all"] for point in points]
        places = [group + (index - (count - 1) / 2) * width for group in range(len(points))]
        heights = [each[value] for each in own]
        axes.bar(places, heights, width * 0.94, color=COLOURS[index])
        if value == P50:
            # From the median up to where 95 of 100 have their image.
            above = [max(0.0, each["p95"] - each[P50]) for each in own]
            errors = [[0.0] * len(above), above]
            axes.errorbar(places, heights, yerr=errors, fmt="none", ecolor=INK, capsize=2)
    axes.set_xticks([*range(len(points))], [str(point["clients"]) for point in points])


def _dots(axes: Axes, point: Mapping[str, Any], part: str, row: str) -> None:
    """Draw every latency of one kind as a dot, and the median as a line."""
    for index, server in enumerate(point["servers"]):
        answers = [each for turn in server["rounds"] for each in turn["answers"]]
        kind = [each for each in answers if each["row"] == row and not each["fault"]]
        taken = sorted(each["seconds"] for each in kind)
        # Spread by rank: dots of one server lie next to each other and stay apart.
        spread = [index + 0.5 * ((7 * rank) % 11 / 10 - 0.5) for rank in range(len(taken))]
        axes.scatter(spread, taken, s=14, color=COLOURS[index], alpha=0.7, linewidths=0)
        if taken:
            middle = server[part][P50]
            axes.hlines(middle, index - 0.38, index + 0.38, color=INK, linewidth=1.4)
            place: Any = {"textcoords": "offset points", "xytext": (2, 0), "va": "center"}
            axes.annotate(f"{middle:.2f}", (index + 0.4, middle), **place)
    names = [server["server"] for server in point["servers"]]
    axes.set_xticks([*range(len(names))], names)
    axes.set_xlim(-0.6, len(names) - 0.2)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("seconds")
