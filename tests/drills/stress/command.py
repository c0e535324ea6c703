"""Find out whether the service keeps its memory: many generations, mixed as those of many people.

Starts the service with the demo model on the loopback address, and makes images of mixed
sizes, steps, samplers, formats and numbers, as answers and as durable jobs with event streams,
by several clients at a time; then the same while every other client hangs up, cancels, runs
out of time or stops in mid-sentence. After each round, when nothing is in work, it
measures the HTTP process and the engine: memory, files, sockets, threads.

    python -m scripts.memory_stress_test                  both, 500 generations each
    python -m scripts.memory_stress_test --hang-up        only with clients that hang up
    python -m scripts.memory_stress_test --no-hang-up     only without
    python -m scripts.memory_stress_test --write          docs/memory-stress.png and .md, too

Exit code 1: memory is not flat, something leaks, is left in work or was answered wrongly.
"""

import argparse
import platform
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from scripts.chart import EXTRA
from scripts.written import demand_writable
from service.errors import ConfigError
from tests.drills.common import report
from tests.drills.common.drill import Drill, Given, Number
from tests.drills.stress.course import stress
from tests.drills.stress.meter import PROC
from tests.drills.stress.outcome import Outcome, described
from tests.drills.stress.polite import SIZES
from tests.drills.stress.verdict import FEWEST

PLOT: Final = report.DOCS / "memory-stress.png"
LEAST_SIDE: Final = 256
MOST_SIDE: Final = 1024
MULTIPLE: Final = 64


def options(root: argparse.ArgumentParser) -> None:
    root.add_argument(
        "--hang-up",
        action=argparse.BooleanOptionalAction,
        help="only the phase in which clients hang up, or only the other; else both",
    )
    root.add_argument("--sizes", type=_sizes, default=SIZES, metavar="256x256,512x384,...")
    root.add_argument("--plot", type=Path, metavar="FILE", help="the plot as PNG")


def _sizes(text: str) -> tuple[tuple[int, int], ...]:
    try:
        pairs = [part.split("x") for part in text.split(",")]
        found = tuple((int(width), int(height)) for width, height in pairs)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not like 256x256,512x384") from None
    for side in (each for pair in found for each in pair):
        if not LEAST_SIDE <= side <= MOST_SIDE or side % MULTIPLE:
            raise argparse.ArgumentTypeError(
                f"{side} is no multiple of {MULTIPLE} from {LEAST_SIDE} to {MOST_SIDE}"
            )
    return found


def refuse(given: Given) -> None:
    """Raise ConfigError for what cannot be done, before half an hour of work."""
    if not (PROC / "self" / "smaps_rollup").exists():
        raise ConfigError("Linux 4.14 or newer is needed (smaps_rollup)")
    if (given.plot or given.write) and find_spec("matplotlib") is None:
        raise ConfigError(f"matplotlib is not installed; {EXTRA} brings it")
    demand_writable("--plot", given.plot)
    demand_writable("--write", PLOT if given.write else None)


def draw(given: Given, outcome: Outcome) -> None:
    """Write the plots that are asked for."""
    for file in filter(None, (given.plot, PLOT if given.write else None)):
        from tests.drills.stress import plot  # noqa: PLC0415 - the extra may be absent

        plot.draw(outcome, file)


def heading(given: Given, _: Outcome) -> str:
    """Return the begin of the figures of docs/memory-stress.md."""
    sizes = ", ".join(f"{width}x{height}" for width, height in given.sizes)
    return f""": Python {platform.python_version()},
{given.generations} generations in each phase, sizes {sizes};
at most {given.limit:g} KiB of growth per generation is flat."""


DRILL: Final = Drill(
    command="scripts.memory_stress_test",
    about=__doc__,
    page="memory-stress",
    # Fewer rounds have no slope to judge, and the service takes no more steps.
    numbers=(
        Number(name="generations", default=500, least=FEWEST, about="of each phase"),
        Number(name="steps", default=4, least=1, most=50, about="most denoising steps"),
        Number(name="clients", default=4, least=1, most=256, about="at a time"),
        Number(name="threads", default=2, least=1, most=1024, about="of the engine"),
        Number(name="seed", default=1, about="of what is asked for"),
        Number(name="rounds", default=25, least=FEWEST, about="of each phase"),
        Number(name="minutes", default=30.0, least=0.1, about="no round begins after"),
        Number(name="limit", default=32.0, about="KiB of growth per generation that are flat"),
    ),
    run=stress,
    checks={
        "memory is flat": Outcome.growing,
        "nothing leaks, is left in work or wrong": lambda outcome: outcome.problems,
    },
    heading=heading,
    described=described,
    data=Outcome.json,
    options=options,
    refuse=refuse,
    finish=draw,
)
main = DRILL.main
