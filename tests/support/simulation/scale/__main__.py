"""Tell how the dispatcher does with up to 1,000 GPUs, and what its formulas say.

    python -m tests.support.simulation.scale --studies waits shares kept failures cost
    python -m tests.support.simulation.scale --write

The figures are kept in docs/scaling/figures.json, study by study: all of them take half an hour of
one core. ``--write`` draws the plots and writes the tables of docs/SCALING.md from it.
"""

import argparse
import json
import logging
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from statistics import quantiles
from typing import Any, Final

import structlog

from tests.support.simulation.scale.cost import cost
from tests.support.simulation.scale.load import failures, kept, shares
from tests.support.simulation.scale.waits import waits
from tests.support.simulation.scale.written import write

ROOT: Final = Path(__file__).parents[4]
FIGURES: Final = ROOT / "docs" / "scaling" / "figures.json"
SIZES: Final = (8, 100, 1000)

SHOWN: Final = 100
"""Points of a distribution."""

Row = dict[str, Any]

WAITS: Final = (
    *((8, 0.7, 1.0, 20_000), (8, 0.8, 1.0, 20_000), (8, 0.9, 1.0, 30_000), (8, 0.9, 1.72, 30_000)),
    *((100, 0.9, 1.0, 30_000), (100, 0.95, 1.0, 50_000), (100, 0.95, 1.72, 50_000)),
    *((1000, 0.95, 1.0, 40_000), (1000, 0.97, 1.0, 80_000), (1000, 0.97, 1.72, 80_000)),
)
"""Servers, load, squared variation of the service times, jobs."""

COSTS: Final = (
    *((1, 0, 1), (8, 0, 1), (64, 0, 1), (100, 0, 1), (300, 0, 1), (1000, 0, 1)),
    *((100, 1000, 1), (1000, 1000, 1), (1000, 1000, 100), (1000, 1000, 1000)),
    *((1000, 10_000, 1), (1000, 10_000, 1000)),
)
"""Engines, waiting jobs, keys."""


def _waits(size: int) -> list[Row]:
    found = []
    for servers, load, variation, jobs in WAITS:
        if servers == size:
            one = waits(servers, load, variation, jobs=jobs, runs=2 if size == 1000 else 5)
            found.append(asdict(one) | {"mean": one.mean, "error": one.error})
    return found


def _kept(size: int) -> list[Row]:
    found = kept(size, seconds=300 if size < 1000 else 60)
    return [
        {
            "engines": size,
            "what": what,
            "ratios": quantiles(found.ratios(told), n=SHOWN),
            "number": len(told),
            "within": found.within(told),
        }
        for what, told in (("Retry-After", found.promises), ("start", found.starts))
        if told
    ]


def _shares(size: int) -> list[Row]:
    return [asdict(shares(size, seconds={8: 600.0, 100: 120.0}.get(size, 30.0)))]


def _failures(size: int) -> list[Row]:
    seconds, betweens = {8: (1800.0, (600, 3600)), 100: (300.0, (600, 3600))}.get(
        size, (60.0, (600, 3600))
    )
    return [asdict(failures(size, seconds=seconds, between=between)) for between in betweens]


def _cost(size: int) -> list[Row]:
    found = []
    for engines, waiting, keys in COSTS:
        if engines <= size and (engines > 100) == (size > 100):
            one = cost(engines, waiting, keys, jobs=1000)
            found.append(asdict(one) | {"a_second": one.a_second})
    return found


STUDIES: Final[dict[str, Callable[[int], list[Row]]]] = {
    "waits": _waits,
    "shares": _shares,
    "kept": _kept,
    "failures": _failures,
    "cost": _cost,
}


def main() -> None:
    """Run studies, or write what they found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--studies", nargs="+", default=(), choices=tuple(STUDIES))
    parser.add_argument("--engines", type=int, nargs="+", default=SIZES, choices=SIZES)
    parser.add_argument("--figures", type=Path, default=FIGURES)
    parser.add_argument("--write", action="store_true", help="plots and tables")
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    for size in options.engines:
        for study in options.studies:
            rows = STUDIES[study](size)
            file: Path = options.figures
            found = json.loads(file.read_text()) if file.exists() else {}
            found.setdefault(study, {})[str(size)] = rows
            file.parent.mkdir(exist_ok=True)
            file.write_text(json.dumps(found, indent=1) + "\n")
            print(study, size, *rows, sep="\n  ")
    if options.write:
        write(json.loads(options.figures.read_text()))


if __name__ == "__main__":
    main()
