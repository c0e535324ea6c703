"""Time pictures of a running service beside the plain diffusers pipeline, in one run.

Both make the same pictures from the same model in turns, so that a noisy machine is noisy
for both. The service must run the bundled demo model.

    python scripts/benchmark_generate.py --url http://127.0.0.1:8000
"""

import argparse
import json
import sys
import time
import urllib.request
from statistics import median
from typing import Any
from urllib.parse import urlsplit

import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline

from service.diffusion.catalog import DEMO_FOLDER

SIZES = ((256, 256), (512, 512), (768, 512), (768, 768))
PROMPT = "A cozy cabin in the woods"
STEPS = 20


def ask(url: str, width: int, height: int, seed: int) -> None:
    """Make one picture with the service."""
    body = {"prompt": PROMPT, "width": width, "height": height, "steps": STEPS, "seed": seed}
    request = urllib.request.Request(  # noqa: S310 - loopback, see main
        f"{url}/generate",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json", "Accept": "image/png"},
    )
    with urllib.request.urlopen(request) as answer:  # noqa: S310
        answer.read()


def draw(pipeline: Any, width: int, height: int, seed: int) -> None:
    """Make one picture with the pipeline, up to the finished image."""
    pipeline(
        PROMPT,
        width=width,
        height=height,
        num_inference_steps=STEPS,
        generator=torch.Generator("cpu").manual_seed(seed),
    )


def timed(work: Any, *arguments: Any) -> float:
    """Return the seconds that a call takes."""
    started = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - started


def measure(url: str, rounds: int) -> None:
    """Print a row per size: median seconds of both, and their ratio."""
    pipeline = StableDiffusionPipeline.from_pretrained(DEMO_FOLDER, dtype=torch.float32)
    pipeline.scheduler = DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    print(f"{torch.get_num_threads()} threads, {STEPS} steps, median of {rounds}\n")
    print("| size | service, s | diffusers pipeline, s | ratio |\n|---|---|---|---|")
    for width, height in SIZES:
        ask(url, width, height, 0)
        draw(pipeline, width, height, 0)
        pairs = [
            (timed(ask, url, width, height, n), timed(draw, pipeline, width, height, n))
            for n in range(rounds)
        ]
        served, plain = (median(column) for column in zip(*pairs, strict=True))
        print(f"| {width}x{height} | {served:.2f} | {plain:.2f} | {served / plain:.2f} |")


def main() -> None:
    """Read the arguments and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    if urlsplit(arguments.url).hostname not in {"127.0.0.1", "localhost", "::1"}:
        sys.exit("The benchmark sends load to this machine only: use a loopback address.")
    measure(arguments.url, arguments.rounds)


if __name__ == "__main__":
    main()
