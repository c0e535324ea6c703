"""Plots of the studies."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.figure import Figure

from scripts.chart import BLUE, DPI, GREEN, GREY, ORANGE, PURPLE, RED, STYLE
from tests.support.simulation.scale.formulas import mean_wait

COLOURS: Final = {"8": BLUE, "100": ORANGE, "1000": GREEN}
WIDTH, HEIGHT = 7.0, 3.4

Figures = Mapping[str, Mapping[str, list[dict[str, Any]]]]


def plots(found: Figures, folder: Path) -> None:
    """Draw every plot into ``folder``."""
    folder.mkdir(exist_ok=True)
    with mpl.rc_context(STYLE):
        for name, draw in {"waits": _waits, "promises": _promises, "cost": _cost}.items():
            figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
            draw(figure, found)
            figure.savefig(folder / f"{name}.png", dpi=DPI, format="png")


def _waits(figure: Figure, found: Figures) -> None:
    axes = figure.add_subplot()
    loads = [0.5 + 0.002 * step for step in range(247)]
    for servers in (1, 8, 100, 1000):
        colour = COLOURS.get(str(servers), GREY)
        axes.plot(loads, [mean_wait(servers, load) for load in loads], color=colour, linewidth=1.2)
        rows = [row for row in found["waits"].get(str(servers), []) if row["variation"] == 1]
        name = f"{servers} GPU{'s' if servers > 1 else ''}"
        axes.errorbar(
            [row["load"] for row in rows],
            [row["mean"] for row in rows],
            yerr=[2 * row["error"] for row in rows],
            color=colour,
            fmt="o",
            markersize=5,
            capsize=3,
            label=name,
        )
    axes.set_yscale("log")
    axes.set_ylim(1e-4, 100)
    axes.set_xlim(0.5, 1.0)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_xlabel("load of each GPU")
    axes.set_ylabel("mean wait, in mean service times")
    axes.set_title("Simulated waits (dots, ± 2 standard errors) and Erlang C (lines)")
    axes.legend(loc="upper left")


def _promises(figure: Figure, found: Figures) -> None:
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, what in ((left, "Retry-After"), (right, "start")):
        axes.axvspan(0.5, 2, color=GREY, alpha=0.2, linewidth=0)
        for size, colour in COLOURS.items():
            for row in found["kept"].get(size, []):
                if row["what"] == what:
                    ratios = row["ratios"]
                    shares = [(number + 1) / (len(ratios) + 1) for number in range(len(ratios))]
                    axes.step(ratios, shares, color=colour, label=f"{size} GPUs", where="post")
        axes.set_xscale("log")
        axes.set_xlim(0.1, 10)
        axes.set_xticks([0.1, 0.5, 1, 2, 10], ["0.1", "0.5", "1", "2", "10"])
        axes.minorticks_off()
        axes.set_xlabel("true / told seconds")
        axes.set_title(
            {"Retry-After": "Retry-After of refused clients"}.get(what, "Expected starts")
        )
    left.set_ylabel("share of clients")
    left.legend(loc="upper left")


def _cost(figure: Figure, found: Figures) -> None:
    axes = figure.add_subplot()
    for name, study, colour in (("before", "cost before", RED), ("now", "cost", BLUE)):
        costs = {
            row["engines"]: row["a_second"]
            for rows in found.get(study, {}).values()
            for row in rows
            if row["waiting"] == 0
        }
        sizes = sorted(costs)
        axes.plot(sizes, [costs[size] for size in sizes], "o-", color=colour, label=name)
    axes.plot(
        [1, 1000], [1, 1000], "--", color=PURPLE, linewidth=1, label="one job a second and GPU"
    )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks([1, 8, 64, 100, 300, 1000], ["1", "8", "64", "100", "300", "1000"])
    axes.minorticks_off()
    axes.set_xlabel("GPUs, all busy")
    axes.set_ylabel("jobs a second")
    axes.set_title("Jobs that one core can accept, start and finish")
    axes.legend(loc="lower right")
