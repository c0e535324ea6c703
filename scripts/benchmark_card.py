"""Answer in one command how the engine does on a GPU; see docs/card.md.

    python3 scripts/benchmark_card.py                    nine minutes on a GPU
    python3 scripts/benchmark_card.py --on-cpu           the same parts, small
    python3 scripts/benchmark_card.py --fetch-wheels     what to bring along, into .whl/

Results and logs go to the folder that the variable OUT names, else to --out. Exit code 0: every
part ran. 1: a part failed or was cut off. 69: packages are missing. 71: there is no GPU.
"""

import argparse
import math
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NoReturn

ROOT: Final = Path(__file__).resolve().parents[1]
if not __package__:  # Started as a file: Python looks into scripts/ instead of the root.
    sys.path[0] = str(ROOT)

from scripts.cards.suite import wheels  # noqa: E402 - after the line above
from scripts.cards.suite.parts import MINUTES, PARTS  # noqa: E402
from service.cli import exits  # noqa: E402
from service.errors import ConfigError, ServiceError  # noqa: E402

PAGE: Final = ROOT / "docs" / "card.md"
NAMES: Final = tuple(part.name for part in PARTS)
MODELS: Final = {True: "demo", False: "models/random-sd15"}
"""By whether a CPU is measured."""


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    root = argparse.ArgumentParser(
        prog="python3 scripts/benchmark_card.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = root.add_argument
    add("--vram", type=float, default=6.0, metavar="GB", help="memory limit (%(default)g)")
    add("--on-cpu", action="store_true", help="run every part small and in float32")
    add("--out", type=Path, default=Path("out"), metavar="FOLDER", help="(%(default)s)")
    add("--write", action="store_const", const=PAGE, help="the figures into docs/card.md, too")
    add("--minutes", type=float, default=MINUTES, help="the whole command ends (%(default)g)")
    add("--parts", type=parts, default=NAMES, metavar="PART,...", help=f"of {', '.join(NAMES)}")
    add(
        "--model",
        metavar="FOLDER",
        help="in diffusers layout (models/random-sd15, built if missing; demo on a CPU)",
    )
    add("--fetch-wheels", action="store_true", help="fetch missing packages into .whl/, and end")
    return root


def parts(text: str) -> tuple[str, ...]:
    """Read names of parts."""
    given = tuple(text.split(","))
    if unknown := set(given) - set(NAMES):
        raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: not of {', '.join(NAMES)}")
    return given


def check(given: argparse.Namespace) -> None:
    """Fill in the model, and refuse what cannot be measured.

    Raises:
        ConfigError: an argument is out of range.

    """
    given.model = given.model or MODELS[given.on_cpu]
    if given.on_cpu and given.write:
        raise ConfigError("--write: docs/card.md has the figures of a GPU; leave out --on-cpu.")
    for name, least in {"vram": 1, "minutes": 0.1}.items():
        if not least <= getattr(given, name) < math.inf:
            raise ConfigError(f"--{name} {getattr(given, name):g}: must be {least} or more.")


def run_suite(given: argparse.Namespace) -> int:
    """Run the parts with what is installed and what was brought along; return the exit code.

    Raises:
        ConfigError: the page cannot be written.

    """
    with wheels.unpacked() as missing:
        if missing:
            print(f"benchmark_card: {wheels.lack(missing)}", file=sys.stderr)
            return exits.Exit.NOT_INSTALLED
        # These need packages that the lines above may have brought.
        from scripts.cards.suite.run import Suite  # noqa: PLC0415
        from scripts.written import demand_writable  # noqa: PLC0415

        demand_writable("--write", given.write)
        return Suite(given, given.out).run()


def end(number: int, _frame: object) -> NoReturn:
    """End as by an exception: the process that measures ends with this one."""
    sys.exit(1 if number == signal.SIGALRM else 128 + number)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure; return the exit code."""
    given = parser().parse_args(arguments)
    if given.fetch_wheels:
        return wheels.fetch()
    given.out = Path(os.environ.get("OUT") or given.out)
    for number in (signal.SIGTERM, signal.SIGALRM):
        signal.signal(number, end)
    try:
        check(given)
        signal.setitimer(signal.ITIMER_REAL, given.minutes * 60)
        return run_suite(given)
    except ServiceError as error:
        print(f"benchmark_card: {error.detail}", file=sys.stderr)
        return exits.code(error)
    except KeyboardInterrupt:
        return exits.Exit.INTERRUPTED
    except OSError as error:
        print(f"benchmark_card: {error}", file=sys.stderr)
        return 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


if __name__ == "__main__":
    sys.exit(main())
