"""Find the settings with which a small card is fastest, by trying them on the card itself.

Number format, tiles, offloading, attention slicing and the size of a batch, each in an engine
process of its own with the service's real settings and loader, under a cap of memory. Prints
seconds, peak memory and how far the images are from those in float32; writes the best as a
file for `docker compose --env-file` and for a shell.

    python -m scripts.optimize_gtx1060 --vram 6              the model that MODEL_ID names
    python -m scripts.optimize_gtx1060 --model models/random-sd15 --size 768x768 --steps 30

On a CPU it measures what a CPU can tell (seconds, host memory, differences) with the demo
model, and writes a file only if --env names one.
"""

import argparse
import math
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from tqdm import tqdm

from scripts.benchmark.rows import Row
from scripts.cards import here
from scripts.cards.choice import DIFFERENCE, MARGIN, Trial, choose, env_text, figures, shown
from scripts.cards.search import NAMES, Question, Search
from scripts.written import demand_writable, replaced
from service.cli import exits
from service.errors import ConfigError, ServiceError
from service.models import catalog

ENV: Final = Path("gtx1060.env")
SD15: Final = "stable-diffusion-v1-5/stable-diffusion-v1-5"
MULTIPLE: Final = 64


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    root = argparse.ArgumentParser(
        prog="python -m scripts.optimize_gtx1060",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = root.add_argument
    add("--vram", type=float, default=6.0, metavar="GB", help="cap (%(default)g)")
    add(
        "--model",
        default=os.environ.get("MODEL_ID") or None,
        help="as MODEL_ID, which is the default; else Stable Diffusion 1.5, on a CPU the demo",
    )
    add("--size", type=size, default=(512, 512), metavar="512x512")
    add("--steps", type=int, default=20, help="denoising steps (%(default)s)")
    add("--rounds", type=int, default=2, help="images counted (%(default)s)")
    add("--batch", type=int, default=3, help="most images at a time (%(default)s)")
    add("--vary", type=names, default=NAMES, metavar="SETTING,...", help=f"of {', '.join(NAMES)}")
    add("--env", type=Path, metavar="FILE", help=f"to write ({ENV}; on a CPU none by default)")
    return root


def size(text: str) -> tuple[int, int]:
    """Read a size like 512x512."""
    try:
        width, height = (int(side) for side in text.split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not like 512x512") from None
    if min(width, height) < MULTIPLE or width % MULTIPLE or height % MULTIPLE:
        raise argparse.ArgumentTypeError(f"{text!r}: sides are multiples of {MULTIPLE}")
    return width, height


def names(text: str) -> tuple[str, ...]:
    """Read names of settings that may change."""
    given = tuple(text.upper().split(","))
    if unknown := set(given) - set(NAMES):
        raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: not of {', '.join(NAMES)}")
    return given


def check(given: argparse.Namespace) -> None:
    """Refuse what cannot be tried, before anything is loaded.

    Raises:
        ConfigError: an argument is out of range, or the file cannot be written.

    """
    for name in ("vram", "steps", "rounds", "batch"):
        if not 1 <= getattr(given, name) < math.inf:
            raise ConfigError(f"--{name} {getattr(given, name):g}: must be 1 or more.")
    demand_writable("--env", given.env)


def search(given: argparse.Namespace, model: str, folder: Path, *, gpu: bool) -> Search:
    """Return the search that is asked for."""
    row = Row(width=given.size[0], height=given.size[1], steps=given.steps)
    fixed = {"MODEL_ID": model, "DEVICE": "cuda" if gpu else "cpu"}
    if gpu:
        fixed["VRAM_LIMIT_GB"] = f"{given.vram:g}"
    return Search(
        question=Question(
            vram=given.vram if gpu else None, row=row, batch=given.batch, vary=given.vary
        ),
        rounds=given.rounds,
        folder=folder,
        fixed=fixed,
    )


def about(given: argparse.Namespace, done: Search) -> str:
    """Return what was measured, where and against what."""
    first = next((each.measured for each in done.trials if each.measured.worked), None)
    where = f"{first.device}, torch {first.torch}" if first else "nowhere"
    what = f"{done.fixed['MODEL_ID']}, {done.question.row.title}"
    said = [
        f"{datetime.now(UTC):%Y-%m-%d}, {where}: {what}, {given.rounds} images of each.",
    ]
    if done.question.gpu:
        said.append(f"Cap {given.vram:g} GB, {MARGIN:g} of them left free; VRAM of the process.")
    else:
        said.append("NOT MEASURED ON A CARD: these are figures of a CPU, memory is the host's.")
        said.append("For a card run this there, or set PROFILE=6gb.")
    if done.reference is not None:
        said.append(
            f"Differences from {shown(done.reference.settings, done.question.base)}: mean of 255 "
            f"grey levels, up to {DIFFERENCE:g} is the same."
        )
    return "\n".join(said)


def tell(given: argparse.Namespace, done: Search) -> int:
    """Print the table and write the file; return the exit code."""
    base, vram = done.question.base, done.question.vram
    said, lines = about(given, done), figures(done.trials, base, vram)
    print(f"{said}\n\n{lines}\n")
    for line in done.question.unasked():
        print(f"Not tried: {line}.")
    best, why = choose(done.trials, vram)
    if best is None:
        print(f"optimize_gtx1060: {why}. No file is written.", file=sys.stderr)
        return 1
    print(f"Best, {why}: {shown(best.settings, base)}")
    if given.env is None:
        print("Nothing is written: this is no card. --env FILE writes it all the same.")
        return 0
    text = env_text(best.settings, f"{said}\n{why[0].upper()}{why[1:]}.\n\n{lines}")
    replaced(given.env, text + ("" if done.question.gpu else "DEVICE=cpu\n"))
    print(f"Written: {given.env}")
    return 0


def run(given: argparse.Namespace) -> int:
    """Look for a card and a model, and search."""
    check(given)
    gpu = here.on_gpu(given.vram)
    if gpu and given.env is None:
        given.env = ENV
        demand_writable("--env", ENV)
    model = given.model or (SD15 if gpu else catalog.DEMO_ID)
    here.found(model)
    with tempfile.TemporaryDirectory(prefix="optimize-") as folder:
        done = search(given, model, Path(folder), gpu=gpu)
        with tqdm(total=done.most, unit="setting", file=sys.stderr) as bar:

            def tried(trial: Trial) -> None:
                line = trial.cells(done.question.base, done.question.vram)
                bar.write(" | ".join(filter(None, line)), file=sys.stderr)
                bar.update()

            done.tried = tried
            done.run()
        return tell(given, done)


def main(arguments: Sequence[str] | None = None) -> int:
    """Search; return the exit code, as docs/STARTUP.md has them."""
    given = parser().parse_args(arguments)
    # A container's end is an exception, too: the process that measures ends with this one.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        return run(given)
    except ServiceError as error:
        print(f"optimize_gtx1060: {error.detail}", file=sys.stderr)
        return exits.code(error)
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        print(f"optimize_gtx1060: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
