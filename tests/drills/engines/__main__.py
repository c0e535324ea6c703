"""Prove that engines add up, and that one that dies takes nothing with it.

Starts the service with engine processes that make no real images: each takes 0.2 s for one. First
the images a second of one engine, of two, of four; then clients order images while one of the
engines is killed, stopped, or killed each time that it starts. In the end each accepted order must
have its image or a reason, and the engine must be back in work.

    python -m tests.drills.engines                          four engines, 200 orders a scene
    python -m tests.drills.engines --engines 2 --seconds 3 --jobs 40 --strikes 1
    python -m tests.drills.engines --write                  the outcome into docs/engines.md, too

Exit code 1: a check failed. The figures need a machine with nothing else to do.
"""

import sys
from pathlib import Path
from typing import Final

from tests.drills.common.drill import Drill, Given, Number
from tests.drills.engines.course import CLIENTS, SIDE, STEPS, measured, played
from tests.drills.engines.outcome import CHECKS, GOALS, Seen, described
from tests.drills.engines.scenes import SCENES


async def run(given: Given, folder: Path) -> Seen:
    """Measure, then play one scene after the other."""
    seen = Seen()
    for count in counts(given.engines):
        seen.rates[count] = await measured(given, folder / f"rate-{count}", count)
    for scene in SCENES:
        seen.courses.append(await played(scene, given, folder / scene.folder))
    return seen


def counts(most: int) -> list[int]:
    """Return the numbers of engines that are measured: 1, twice as many, and so on."""
    return sorted({min(2**power, most) for power in range(most.bit_length() + 1)})


def heading(given: Given, _seen: Seen) -> str:
    """Return the begin of the figures of docs/engines.md."""
    return f""":
orders of {SIDE}x{SIDE} with {STEPS} steps, {given.job_seconds:g} s of an engine each, half of them
as durable jobs and half by `POST /generate`, from {CLIENTS} clients for each engine."""


DRILL: Final = Drill(
    command="tests.drills.engines",
    about=__doc__,
    page="engines",
    numbers=(
        Number(name="seed", default=1, about="of the orders and the engines that are struck"),
        Number(name="engines", default=4, least=1, most=64, about="engines"),
        Number(name="job-seconds", default=0.2, least=0.01, about="of an engine for an image"),
        Number(name="seconds", default=20.0, least=1, about="of each measurement"),
        Number(name="jobs", default=200, least=1, about="orders in each scene, at least"),
        Number(name="strikes", default=3, least=1, about="engines that are struck in each scene"),
    ),
    run=run,
    checks=CHECKS,
    goals=GOALS,
    heading=heading,
    described=described,
)

if __name__ == "__main__":
    sys.exit(DRILL.main())
