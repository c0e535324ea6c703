"""Attack the service for five minutes and see whether another client notices.

Starts two services with a fake engine of 50 ms a step on the loopback address. One client from
127.0.0.1 attacks one of them with one key: webhooks to names that are never looked up and to
hosts that never answer, answers that are not read, bodies that do not end, watchers, wrong
keys. Another key from 127.0.0.2 asks both for images, in turns: the attacked service in one
window, the other one in the next, while a busy loop takes as much CPU as the attacker did.

    python -m tests.drills.hostile                     five minutes of everything (10 in all)
    python -m tests.drills.hostile --each 15           each attack by itself first, 15 s each
    python -m tests.drills.hostile --seconds 60        shorter
    python -m tests.drills.hostile --write             the outcome into docs/hostile.md, too

Exit code 1: a goal was missed; it is named.
"""

import argparse
import os
import socket
import sys
from typing import Final

from scripts.benchmark.machine import cores
from service.errors import ConfigError
from tests.drills.common.drill import Drill, Given, Number
from tests.drills.hostile.attacks import ATTACKS
from tests.drills.hostile.course import WINDOW_SECONDS, run
from tests.drills.hostile.figures import cpu_name, described, missed
from tests.drills.hostile.load import SOURCE

MOST: Final = 3600


def options(root: argparse.ArgumentParser) -> None:
    root.add_argument(
        "--attacks",
        type=_attacks,
        default=tuple(ATTACKS),
        metavar="NAME,...",
        help=f"only these of {', '.join(ATTACKS)}",
    )


def _attacks(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    if unknown := set(names) - set(ATTACKS):
        raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: no attack of this drill")
    return names


def refuse(given: Given) -> None:
    """Raise ConfigError for what cannot be done."""
    if not given.window or not (given.seconds or given.each):
        raise ConfigError("--window, and --seconds or --each: must be above 0")
    if given.write and set(given.attacks) != set(ATTACKS):
        raise ConfigError("--write: not with --attacks; the page is about all of them")
    try:
        with socket.socket() as tried:
            tried.bind((SOURCE, 0))
    except OSError as error:
        raise ConfigError(f"{SOURCE} is no address here ({error.strerror}); use Linux") from error


DRILL: Final = Drill(
    command="tests.drills.hostile",
    about=__doc__,
    page="hostile",
    numbers=(
        Number(name="seconds", default=300.0, most=MOST, about="of all attacks, and their control"),
        Number(name="each", default=0.0, most=MOST, about="of each attack by itself, before that"),
        Number(name="window", default=WINDOW_SECONDS, most=MOST, about="longest window of either"),
    ),
    run=run,
    checks={
        "other clients notice nothing": lambda rounds: (
            f"{seen.name}: {goal}" for seen in rounds for goal in missed(seen)
        )
    },
    heading=lambda *_: f", on {cores()} cores of {cpu_name()}, at the nice level {os.nice(0)}.",
    described=described,
    data=lambda rounds: [seen.json() for seen in rounds],
    options=options,
    refuse=refuse,
)

if __name__ == "__main__":
    sys.exit(DRILL.main())
