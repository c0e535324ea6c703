"""Time the engine beside the plain diffusers pipeline on one GPU, both under a cap of memory.

Stable Diffusion 1.5's true shape with random weights in float16, which is built if it is missing;
seconds, peak VRAM and the ratio for 512x512 in 20, 768x512 in 25 and 768x768 in 30 steps.

    python -m scripts.benchmark_card --vram 6 --write       the table, and docs/card.md
    python -m scripts.benchmark_card --on-cpu --rows 256x256/2 --rounds 1     the path alone

Exit code 71: there is no GPU, and --on-cpu was not given. 1: a contender made no picture.
"""

import argparse
import json
import math
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any, Final

from tqdm import tqdm

from scripts.benchmark.rows import Row
from scripts.benchmark.rows import rows as performance_rows
from scripts.cards import here, page, versus
from scripts.cards.order import Measured
from scripts.cards.versus import CONTENDERS, ROWS, Duel, title
from scripts.drill.written import demand_writable
from service import exits
from service.errors import ConfigError, GpuMissing, ServiceError

DOCS: Final = Path(__file__).parents[1] / "docs"
MODEL: Final = Path("models/random-sd15")
MULTIPLE: Final = 64


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    root = argparse.ArgumentParser(
        prog="python -m scripts.benchmark_card",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    root.add_argument("--vram", type=float, default=6.0, metavar="GB", help="cap (%(default)g)")
    root.add_argument(
        "--model",
        default=str(MODEL),
        metavar="FOLDER",
        help="in diffusers layout (%(default)s, which is built if it is missing)",
    )
    root.add_argument("--rows", type=rows, default=ROWS, metavar="512x512/20,...", help="to draw")
    root.add_argument("--rounds", type=int, default=3, help="turns of each (%(default)s)")
    root.add_argument("--pictures", type=int, default=3, help="counted in a turn (%(default)s)")
    root.add_argument("--steps", type=int, help="in place of those of the rows")
    root.add_argument(
        "--minutes", type=float, default=8.5, help="no turn begins after (%(default)s)"
    )
    root.add_argument(
        "--on-cpu", action="store_true", help="float32 and seconds only: VRAM needs a GPU"
    )
    root.add_argument("--write", action="store_true", help="docs/card.md and docs/card.json")
    return root


def rows(text: str) -> tuple[Row, ...]:
    """Read rows like 512x512/20."""
    try:
        found = performance_rows(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    for row in found:
        if row.width % MULTIPLE or row.height % MULTIPLE:
            raise argparse.ArgumentTypeError(f"{row.name!r}: sides are multiples of {MULTIPLE}")
    return found


def check(given: argparse.Namespace) -> None:
    """Refuse what cannot be measured.

    Raises:
        ConfigError: an argument is out of range, or the page cannot be written.
        GpuMissing: there is no GPU.

    """
    for name, least in {"vram": 1, "rounds": 1, "pictures": 1, "minutes": 0.1}.items():
        if not least <= getattr(given, name) < math.inf:
            raise ConfigError(f"--{name} {getattr(given, name):g}: must be {least} or more.")
    if given.steps is not None and given.steps < 1:
        raise ConfigError(f"--steps {given.steps}: must be 1 or more.")
    for file in page.files(DOCS) if given.write else ():
        demand_writable("--write", file)
    if given.write:
        page.kept(DOCS)
    if not given.on_cpu and not here.on_gpu(given.vram):
        raise GpuMissing(
            "torch finds no GPU here, without which neither VRAM nor float16 can be measured. "
            "--on-cpu measures the seconds alone, in float32."
        )


def build_missing(model: str) -> None:
    """Build the random model, if it is the one that is asked for and not there."""
    if Path(model) != MODEL or MODEL.exists():
        return
    from scripts.random_weights import folder  # noqa: PLC0415 - it imports torch
    from scripts.random_weights.shapes import SHAPES  # noqa: PLC0415
    from scripts.random_weights.weights import DTYPES  # noqa: PLC0415

    shape, dtype = SHAPES["sd15"], DTYPES["float16"]
    total = folder.needed_bytes(shape, dtype)
    with tqdm(total=total, unit="B", unit_scale=True, desc=MODEL.name, file=sys.stderr) as bar:
        folder.build(shape, MODEL, dtype=dtype, done=bar.update)


def demand_folder(model: str) -> None:
    """Insist that the model is here, in a layout that both contenders read.

    Raises:
        ModelError: it is not here.
        ConfigError: it is a single file.

    """
    source = here.found(model)
    if source.single_file:
        raise ConfigError(f"--model {model}: is a single file; name a folder in diffusers layout.")


def settings(given: argparse.Namespace) -> dict[str, str]:
    """Return the settings of both contenders; the engine's own are those of a card of 6 GB."""
    chosen = {"MODEL_ID": given.model}
    if given.on_cpu:
        return chosen | {"DEVICE": "cpu", "DTYPE": "float32", "MAX_CONCURRENT_REQUESTS": "1"}
    return chosen | {
        "DEVICE": "cuda",
        "DTYPE": "float16",
        "VRAM_LIMIT_GB": f"{given.vram:g}",
        "PROFILE": "6gb",
        "MAX_CONCURRENT_REQUESTS": "1",
    }


def measure(given: argparse.Namespace, ends: float) -> list[Duel]:
    """Run all turns with a progress bar."""
    wanted = given.rows
    if given.steps is not None:
        wanted = tuple(Row(width=r.width, height=r.height, steps=given.steps) for r in wanted)
    total = len(wanted) * len(CONTENDERS) * given.rounds
    with (
        tempfile.TemporaryDirectory(prefix="card-") as folder,
        tqdm(total=total, unit="turn", file=sys.stderr) as bar,
    ):

        def ran(row: Row, contender: str, measured: Measured) -> None:
            said = measured.failure or f"{median(measured.seconds):.2f} s"
            bar.write(f"{title(row)}, {contender}: {said}", file=sys.stderr)
            bar.update()

        return list(
            versus.turns(
                wanted,
                settings(given),
                rounds=given.rounds,
                pictures=given.pictures,
                folder=Path(folder),
                ends=ends,
                ran=ran,
            )
        )


def result(given: argparse.Namespace, duels: Sequence[Duel]) -> Mapping[str, Any]:
    """Return what is kept of a run."""
    known = versus.machine(duels)
    where = ", ".join(f"{name} {value}" for name, value in known.items())
    cap = "no cap" if given.on_cpu else f"a cap of {given.vram:g} GB"
    turns = max((len(runs) for duel in duels for runs in duel.runs.values()), default=0)
    return {
        "measured": (
            f"{datetime.now(UTC):%Y-%m-%d}: {where}; {cap}; {Path(given.model).name}; "
            f"turns: {turns}, of {given.pictures} pictures each."
        ),
        "table": versus.table(duels, gpu=not given.on_cpu),
        "notes": versus.notes(duels, 0 if given.on_cpu else given.vram),
        "machine": known,
        "rows": [duel.json() for duel in duels],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; return the exit code."""
    given = parser().parse_args(arguments)
    # A container's end is an exception, too: the process that measures ends with this one.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    ends = time.monotonic() + given.minutes * 60
    try:
        check(given)
        build_missing(given.model)
        demand_folder(given.model)
        duels = measure(given, ends)
        found = result(given, duels)
        print("\n\n".join([found["measured"], found["table"], *found["notes"]]))
        if given.write:
            page.write(DOCS, "cpu" if given.on_cpu else "gpu", found)
    except ServiceError as error:
        print(f"benchmark_card: {error.detail}", file=sys.stderr)
        return exits.code(error)
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        print(f"benchmark_card: {error}", file=sys.stderr)
        return 1
    print(json.dumps(found["machine"]), file=sys.stderr)
    return int(any(duel.ratio is None for duel in duels))


if __name__ == "__main__":
    sys.exit(main())
