"""Find the settings with which a small card is fastest, by trying them on the card itself.

Number format, tiles, offloading, attention slicing and the size of a batch, each in an engine
process of its own with the service's real settings and loader, under a cap of memory. Prints
seconds, peak memory and how far the pictures are from those in float32; writes the best as a
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

from scripts.cards import here, results
from scripts.cards.choice import Bounds, Choice, Trial, choose
from scripts.cards.search import Search
from scripts.cards.settings import NAMES, Question, shown
from scripts.drill.written import demand_writable
from service import exits
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
    root.add_argument("--vram", type=float, default=6.0, metavar="GB", help="cap (%(default)g)")
    root.add_argument(
        "--model",
        default=os.environ.get("MODEL_ID") or None,
        help="as MODEL_ID, which is the default; else Stable Diffusion 1.5, on a CPU the demo",
    )
    root.add_argument("--size", type=size, default=(512, 512), metavar="512x512")
    root.add_argument("--steps", type=int, default=20, help="denoising steps (%(default)s)")
    root.add_argument("--rounds", type=int, default=2, help="pictures counted (%(default)s)")
    root.add_argument("--batch", type=int, default=3, help="most pictures at a time (%(default)s)")
    root.add_argument(
        "--vary", type=names, default=NAMES, metavar="SETTING,...", help=f"of {', '.join(NAMES)}"
    )
    root.add_argument(
        "--margin", type=float, default=0.4, metavar="GB", help="of the cap left free (%(default)g)"
    )
    root.add_argument(
        "--difference",
        type=float,
        default=3.0,
        metavar="LEVELS",
        help="mean difference from float32, of 255, that still is the same picture (%(default)g)",
    )
    root.add_argument(
        "--env", type=Path, metavar="FILE", help=f"to write ({ENV}; on a CPU none by default)"
    )
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
    least = {"vram": 1, "steps": 1, "rounds": 1, "batch": 1, "margin": 0, "difference": 0}
    for name, lowest in least.items():
        if not lowest <= getattr(given, name) < math.inf:
            raise ConfigError(f"--{name} {getattr(given, name):g}: must be {lowest} or more.")
    if given.margin >= given.vram:
        raise ConfigError(f"--margin {given.margin:g}: must be less than --vram {given.vram:g}.")
    demand_writable("--env", given.env)


def search(given: argparse.Namespace, model: str, folder: Path, *, gpu: bool) -> Search:
    """Return the search that is asked for."""
    width, height = given.size
    fixed = {"MODEL_ID": model, "DEVICE": "cuda" if gpu else "cpu"}
    if gpu:
        fixed["VRAM_LIMIT_GB"] = f"{given.vram:g}"
    return Search(
        question=Question(gpu=gpu, longest=max(width, height), batch=given.batch, vary=given.vary),
        bounds=Bounds(
            vram=given.vram if gpu else None, margin=given.margin, difference=given.difference
        ),
        width=width,
        height=height,
        steps=given.steps,
        rounds=given.rounds,
        folder=folder,
        fixed=fixed,
    )


def about(given: argparse.Namespace, done: Search, model: str) -> list[str]:
    """Return what was measured, where and against what."""
    first = next((each.measured for each in done.trials if each.measured.worked), None)
    width, height = given.size
    said = [
        f"{datetime.now(UTC):%Y-%m-%d}, {first.device if first else 'nowhere'}"
        + (f", torch {first.torch}" if first else "")
        + f": {model}, {width}x{height}, {given.steps} steps, {given.rounds} pictures of each.",
    ]
    if done.question.gpu:
        said.append(
            f"Cap {given.vram:g} GB, {given.margin:g} of them left free; VRAM of the process."
        )
    else:
        said.append("NOT MEASURED ON A CARD: these are figures of a CPU, memory is the host's.")
        said.append("For a card run this there, or set PROFILE=6gb.")
    if done.reference is not None:
        said.append(
            f"Differences from {shown(done.reference.settings, done.question.base)}: mean of 255 "
            f"grey levels, up to {given.difference:g} is the same."
        )
    return said


def tell(given: argparse.Namespace, done: Search, choice: Choice, model: str) -> int:
    """Print the table and write the file; return the exit code."""
    figures = results.table(done.trials, done.question.base, done.bounds)
    said = about(given, done, model)
    print("\n".join([*said, "", figures, ""]))
    for line in done.question.unasked():
        print(f"Not tried: {line}.")
    if choice.best is None:
        print(f"optimize_gtx1060: {choice.reason}. No file is written.", file=sys.stderr)
        return 1
    print(f"Best, {choice.reason}: {shown(choice.best.settings, done.question.base)}")
    if given.env is None:
        print("Nothing is written: this is no card. --env FILE writes it all the same.")
        return 0
    device = "" if done.question.gpu else "DEVICE=cpu\n"
    results.write(given.env, results.env_text(choice, said, figures) + device)
    print(f"Written: {given.env}")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Search; return the exit code, as docs/STARTUP.md has them."""
    given = parser().parse_args(arguments)
    # A container's end is an exception, too: the process that measures ends with this one.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
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
                    line = results.cells(trial, done.question.base, done.bounds)
                    bar.write(" | ".join(filter(None, line)), file=sys.stderr)
                    bar.update()

                done.tried = tried
                done.run()
            return tell(given, done, choose(done.trials, done.bounds), model)
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
