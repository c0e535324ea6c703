"""Tables and plots of docs/SCALING.md from the figures of the studies."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from scripts.written import filled, replaced, table
from tests.support.simulation.scale.formulas import largest_load, mean_wait
from tests.support.simulation.scale.plots import plots

DOCUMENT: Final = Path(__file__).parents[4] / "docs" / "SCALING.md"

Figures = Mapping[str, Mapping[str, list[dict[str, Any]]]]


def rows(found: Figures, study: str) -> list[dict[str, Any]]:
    """Return what a study found, with the fewest engines first."""
    return [row for size in sorted(found.get(study, {}), key=int) for row in found[study][size]]


def write(found: Figures) -> None:
    """Write the plots and the tables."""
    plots(found, DOCUMENT.parent / "scaling")

    def lines(kind: str, name: str) -> Iterator[str]:
        assert kind == "simulation"
        yield TABLES[name](found)

    replaced(DOCUMENT, filled(DOCUMENT.read_text(encoding="utf-8"), lines))


def _waits(found: Figures) -> str:
    head = ("GPUs", "Load", "cv²", "Jobs", "Waited", "Mean wait", "±", "Formula")
    return table(
        head,
        (
            (
                row["servers"],
                f"{row['load']:.0%}",
                f"{row['variation']:g}",
                row["jobs"],
                f"{row['waited']:.1%}",
                f"{row['mean']:.4f}",
                f"{2 * row['error']:.4f}",
                f"{mean_wait(row['servers'], row['load'], variation=row['variation']):.4f}",
            )
            for row in rows(found, "waits")
        ),
    )


def _pools(_found: Figures) -> str:
    head = ("GPUs behind one queue", "Wait at 80 %", "At 90 %", "At 95 %", "Load for a wait of 0.1")
    return table(
        head,
        (
            (
                servers,
                *(f"{mean_wait(servers, load):.3g}" for load in (0.8, 0.9, 0.95)),
                f"{largest_load(servers, 0.1):.1%}",
            )
            for servers in (1, 4, 8, 64, 100, 1000)
        ),
    )


def _shares(found: Figures) -> str:
    head = ("GPUs", "Used", "Jain's index", "Done", "Refused", "Of light keys")
    return table(
        (*head, "Light: mean wait, s", "p99", "Flood: mean wait"),
        (
            (
                row["engines"],
                f"{row['used']:.1%}",
                f"{row['jain']:.3f}",
                row["done"],
                row["refused"],
                row["light_refused"],
                f"{row['light_wait']:.2f}",
                f"{row['light_p99']:.1f}",
                f"{row['flood_wait']:.2f}",
            )
            for row in rows(found, "shares")
        ),
    )


def _kept(found: Figures) -> str:
    head = ("GPUs", "Told", "Number", "Right within 2", "True/told, p5", "Median", "p95")
    return table(
        head,
        (
            (
                row["engines"],
                row["what"],
                row["number"],
                f"{row['within']:.0%}",
                *(f"{row['ratios'][at]:.2f}" for at in (4, 49, 94)),
            )
            for row in rows(found, "kept")
        ),
    )


def _failures(found: Figures) -> str:
    head = ("GPUs", "Each fails every", "Died", "Parted", "Accepted", "Succeeded", "Failed")
    more = ("Begun again", "Work lost", "By rates", "Mean wait, s", "p99", "Without failures")
    return table(
        (*head, *more),
        (
            (
                row["engines"],
                f"{row['between'] / 60:.0f} min",
                *(row[name] for name in ("died", "parted", "accepted", "succeeded", "failed")),
                row["repeated"],
                f"{row['lost']:.2%}",
                f"{row['by_rates']:.2%}",
                f"{row['wait']:.2f}",
                f"{row['p99']:.1f}",
                f"{abs(row['undisturbed']):.2f}",
            )
            for row in rows(found, "failures")
        ),
    )


def _cost(found: Figures) -> str:
    cases = {(row["engines"], row["waiting"], row["keys"]): row for row in rows(found, "cost")}
    head = ("GPUs", "Waiting", "Keys", "Milliseconds a job", "Jobs a second of one core")
    return table(
        head,
        (
            (*case, f"{row['milliseconds']:.2f}", f"{row['a_second']:,.0f}")
            for case, row in sorted(cases.items())
        ),
    )


TABLES: Final[dict[str, Callable[[Figures], str]]] = {
    "waits": _waits,
    "pools": _pools,
    "shares": _shares,
    "promises": _kept,
    "failures": _failures,
    "cost": _cost,
}
