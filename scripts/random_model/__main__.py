"""Build a model of the true shape of Stable Diffusion 1.5, 2.1 or XL with random weights.

It takes the memory and the time of the real one and draws noise: for measurements where
nothing can be downloaded. The service loads it as any folder, MODEL_ID=models/random-sd15.
A tiny one has all blocks of the real one, a tenth as wide: to try out several models or sizes.

    python -m scripts.random_model                           Stable Diffusion 1.5, float16, 2.1 GB
    python -m scripts.random_model --shape sd21-v            2.1 at 768, velocity, float16, 2.6 GB
    python -m scripts.random_model --shape sdxl              SDXL, float16, 6.9 GB
    python -m scripts.random_model --shape tiny-sd15         24 MB; tiny-sd21-v: 33 MB
    python -m scripts.random_model --shape tiny-sdxl         99 MB

``-inpaint`` behind ``sd15``, ``sdxl`` and their tiny ones makes a model for inpainting.
"""

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from scripts.random_model.shapes import SHAPES
from service.cli import exits
from service.errors import ServiceError


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    root = argparse.ArgumentParser(
        prog="python -m scripts.random_model",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    root.add_argument("--shape", choices=tuple(SHAPES), default="sd15", help="(%(default)s)")
    root.add_argument(
        "--dtype", choices=("float16", "float32"), default="float16", help="(%(default)s)"
    )
    root.add_argument(
        "--out", type=Path, metavar="FOLDER", help="to write; models/random-SHAPE by default"
    )
    root.add_argument("--seed", type=int, default=0, help="same seed, same weights (%(default)s)")
    return root


def main(arguments: Sequence[str] | None = None) -> int:
    """Build the model; return the exit code, as docs/STARTUP.md has them."""
    given = parser().parse_args(arguments)
    out = given.out or Path("models") / f"random-{given.shape}"
    # A container's end is an exception, too: what is written by half is removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    # Imported late: --help and a wrong argument need no torch.
    import torch  # noqa: PLC0415

    from scripts.random_model import folder  # noqa: PLC0415

    shape, dtype = SHAPES[given.shape], getattr(torch, given.dtype)
    total = folder.needed_bytes(shape, dtype)
    try:
        with tqdm(total=total, unit="B", unit_scale=True, desc=out.name, file=sys.stderr) as bar:
            folder.build(shape, out, dtype=dtype, seed=given.seed, done=bar.update)
    except ServiceError as error:
        print(f"random_model: {error.detail}", file=sys.stderr)
        return exits.code(error)
    except KeyboardInterrupt:
        return 130
    print(out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
