"""Train the demo model from nothing: text encoder, autoencoder, UNet, export.

Run from the repository's root: python -m scripts.demo_model.train. Each stage leaves its result in
the work folder and is skipped when it is there; the UNet resumes from its last checkpoint.
"""

import argparse
import os
from pathlib import Path

import torch

from .autoencoder import train_autoencoder
from .continuation import unpack
from .export import export, pipeline
from .text_encoder import train_text_encoder
from .unet import averaged_unet, train_unet

TEXT_STEPS = 500


def main() -> None:
    """Read the command line and run the stages that are missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path(".training"))
    parser.add_argument("--out", type=Path, default=Path("service/demo"))
    parser.add_argument("--minutes", type=float, default=68, help="for the UNet, in all")
    parser.add_argument("--autoencoder-minutes", type=float, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--export-only", action="store_true", help="export the last checkpoint")
    parser.add_argument(
        "--start-from",
        type=Path,
        help="go on from an exported model for --minutes, in an empty work folder",
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    work: Path = options.work
    work.mkdir(exist_ok=True)
    minutes = options.minutes
    if options.start_from:
        # Half of the schedule counts as done: big pictures, and a learning rate that falls.
        unpack(options.start_from, work, spent=60 * minutes)
        minutes *= 2
    if not options.export_only:
        (work / "pid").write_text(str(os.getpid()))
        if not (work / "text" / "text_encoder").exists():
            train_text_encoder(work / "text", steps=TEXT_STEPS)
        if not (work / "autoencoder").exists():
            train_autoencoder(work / "autoencoder", minutes=options.autoencoder_minutes)
        train_unet(work, minutes=minutes, workers=options.threads)
    unet, counters = averaged_unet(work)
    pipe = pipeline(work / "text", work / "autoencoder", unet, counters["scaling"])
    print(counters, "bytes:", export(pipe, options.out))


if __name__ == "__main__":
    main()
