"""Find out whether the service keeps its memory: many generations, mixed as those of many people.

Starts the service with the demo model on the loopback address, and makes pictures of mixed
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
import json
import math
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import aiohttp

from scripts.chart import EXTRA
from scripts.drill.carried_out import carried_out
from scripts.drill.service import service_in
from scripts.drill.written import demand_writable
from scripts.stress import report
from scripts.stress.course import HANG_UP, STEADY, Course
from scripts.stress.meter import PROC, Meter
from scripts.stress.orders import SIZES, orders
from scripts.stress.report import Outcome
from scripts.stress.verdict import FEWEST
from service.errors import ConfigError

NAME: Final = "memory_stress_test"
DOCS: Final = Path(__file__).parents[1] / "docs"
PAGE: Final = DOCS / "memory-stress.md"
PLOT: Final = DOCS / "memory-stress.png"
KIB: Final = 1024

LEAST_SIDE: Final = 256
MOST_SIDE: Final = 1024
MULTIPLE: Final = 64
BOUNDS: Final = {
    "generations": (FEWEST, math.inf),
    "rounds": (FEWEST, math.inf),
    "steps": (1, 50),
    "clients": (1, 256),
    "threads": (1, 1024),
    "minutes": (0.1, math.inf),
    "limit": (0, math.inf),
}
"""Least and most; fewer rounds have no slope to judge, and the service takes no more steps."""


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    root = argparse.ArgumentParser(
        prog="python -m scripts.memory_stress_test",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    root.add_argument("--generations", type=int, default=500, help="of each phase (%(default)s)")
    root.add_argument(
        "--hang-up",
        action=argparse.BooleanOptionalAction,
        help="only the phase in which clients hang up, or only the other; else both",
    )
    root.add_argument("--sizes", type=_sizes, default=SIZES, metavar="256x256,512x384,...")
    root.add_argument("--steps", type=int, default=4, help="most denoising steps (%(default)s)")
    root.add_argument("--clients", type=int, default=4, help="at a time (%(default)s)")
    root.add_argument("--threads", type=int, default=2, help="of the engine (%(default)s)")
    root.add_argument("--seed", type=int, default=1, help="of what is asked for (%(default)s)")
    root.add_argument("--rounds", type=int, default=25, help="of each phase (%(default)s)")
    root.add_argument(
        "--minutes", type=float, default=30, help="no round begins after (%(default)s)"
    )
    root.add_argument(
        "--limit",
        type=float,
        default=32,
        metavar="KIB",
        help="growth per generation that still is flat (%(default)s KiB, half of a latent)",
    )
    root.add_argument("--write", action="store_true", help="plot and table into docs/")
    root.add_argument("--report", type=Path, metavar="FILE", help="all samples as JSON")
    root.add_argument("--plot", type=Path, metavar="FILE", help="the plot as PNG")
    return root


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


def check(given: argparse.Namespace) -> None:
    """Refuse what cannot be done, before half an hour of work.

    Raises:
        ConfigError: names the argument, its bounds and the cure.

    """
    for name, (least, most) in BOUNDS.items():
        value = getattr(given, name)
        if not least <= value <= most or value == math.inf:
            upper = "" if most == math.inf else f", {most:g} at most"
            raise ConfigError(f"--{name} {value:g}: must be {least:g} or more{upper}.")
    if (given.plot or given.write) and find_spec("matplotlib") is None:
        raise ConfigError(f"matplotlib is not installed; {EXTRA} brings it")
    demand_writable("--report", given.report)
    demand_writable("--plot", given.plot)
    for file in (PAGE, PLOT) if given.write else ():
        demand_writable("--write", file)


async def stress(given: argparse.Namespace, folder: Path) -> Outcome:
    """Run the phases that are asked for, and judge them."""
    # As a user runs it: the drill's small limits are undone, and no fault is committed.
    environment = {
        "FAULT_FILE": "",
        "MAX_CONCURRENT_REQUESTS": "3",
        "QUEUE_SIZE": "64",
        "MIN_SIZE": "256",
        "TORCH_THREADS": str(given.threads),
        "REQUEST_TIMEOUT_SECONDS": "300",
        "ENGINE_STALL_SECONDS": "600",
        # Short lives and little room, so that forgetting is a part of the test.
        "RESULTS_MAX_AGE_SECONDS": "120",
        "RESULTS_MAX_BYTES": str(16 * 2**20),
        "BODY_TIMEOUT_SECONDS": "5",
        "HEADER_TIMEOUT_SECONDS": "5",
    }
    async with service_in(folder, environment) as service:
        await service.start()
        engine = await service.engine()
        async with aiohttp.ClientSession(service.url) as session:
            meter = Meter(service, session, engine.pid)
            course = Course(
                service=service,
                meter=meter,
                orders=orders(given.seed, given.sizes, given.steps),
                clients=given.clients,
                rounds=given.rounds,
                seed=given.seed,
                ends=time.monotonic() + given.minutes * 60,
            )
            phases = [STEADY] * (not given.hang_up) + [HANG_UP] * (given.hang_up is not False)
            for phase in phases:
                await course.phase(phase, given.generations)
            if not engine.is_running():
                course.problems.append("the engine was started again")
            return report.outcome(course, await meter.metrics(), given.limit * KIB)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the test; return its exit code."""
    given = parser().parse_args(arguments)
    if not (PROC / "self" / "smaps_rollup").exists():
        print(f"{NAME}: Linux 4.14 or newer is needed (smaps_rollup)", file=sys.stderr)
        return 2
    try:
        check(given)
        result = carried_out(NAME, None, lambda folder: stress(given, folder))
    except ConfigError as error:
        print(f"{NAME}: {error}", file=sys.stderr)
        return 2
    except (ValueError, OSError) as error:
        print(f"{NAME}: {error}", file=sys.stderr)
        return 1
    print("\n" + report.text(result))
    if given.report is not None:
        given.report.write_text(json.dumps(result.json(), indent=1) + "\n", encoding="utf-8")
    pictures = [given.plot] if given.plot else []
    for file in [*pictures, PLOT] if given.write else pictures:
        from scripts.stress import plot  # noqa: PLC0415 - the extra may be absent

        plot.draw(result, file)
    if given.write:
        PAGE.write_text(report.page(result, given), encoding="utf-8")
    return 0 if result.passed else 1


if __name__ == "__main__":
    sys.exit(main())
