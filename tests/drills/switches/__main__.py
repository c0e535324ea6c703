"""Prove what models cost that take turns: clients of two, of which one is in memory at a time.

Starts the service with the real engine on the loopback address. Four clients ask for images of
two models, each for its next one when it has the last; a budget of host memory, or a limit of
address space, lets one of both stay. Then engines and whole services are killed in the midst of
a load. In the end each order must have its image, drawn by the model that it named, and no job
may have waited longer than docs/decisions/012-several-models.md says.

    python -m tests.drills.switches                         60 s a scene, a limit of 6 GB
    python -m tests.drills.switches --seconds 5 --images 3 --rounds 1
    python -m tests.drills.switches --write                 the outcome into its page, too

Exit code 1: a check failed.
"""

import sys
import tempfile
from pathlib import Path
from typing import Final

from tests.drills.common.drill import Drill, Given, Number
from tests.drills.switches.course import CLIENTS, SIDE, STEPS, played
from tests.drills.switches.outcome import CHECKS, Seen, described
from tests.drills.switches.scenes import SCENES, built


async def run(given: Given, folder: Path) -> Seen:
    """Build the models, and play one scene after the other."""
    with tempfile.TemporaryDirectory(dir=folder, prefix="models-") as models:
        built(Path(models), given.limit_gb * 1e9)
        return [
            await played(scene, given, folder / f"scene-{number}", Path(models))
            for number, scene in enumerate(SCENES)
        ]


def heading(given: Given, _seen: Seen) -> str:
    """Return the begin of the figures of docs/model-switches.md."""
    load = f"{CLIENTS} clients, {SIDE}x{SIDE} and {STEPS} steps, one thread."
    return f":\n{load} The limit of address space is {given.limit_gb:g} GB."


DRILL: Final = Drill(
    command="tests.drills.switches",
    about=__doc__,
    page="model-switches",
    numbers=(
        Number(name="seed", default=1, about="of the moments of kills"),
        Number(name="seconds", default=60.0, about="of each scene, at least"),
        Number(name="images", default=4, least=1, about="of each client in a scene, at least"),
        Number(name="limit-gb", default=6.0, least=2.5, about="address space of the third scene"),
        Number(name="rounds", default=3, about="kills of the engine, and of the service"),
    ),
    run=run,
    checks=CHECKS,
    heading=heading,
    described=described,
)

if __name__ == "__main__":
    sys.exit(DRILL.main())
