"""Generate the pictures that a newcomer would ask for first, on one page.

Run from the repository's root: python -m scripts.demo_model.gallery docs/demo-gallery.jpg.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline

from .sheet import sheet

ASKED = (
    ("A beautiful sunset over mountains", 512, 512),
    ("A serene lake with mountains in the background", 512, 512),
    ("A cute robot in a garden", 512, 512),
    ("A magical forest with glowing mushrooms", 512, 512),
    ("A cozy cabin in the woods", 512, 512),
    ("A red hot air balloon over the desert at dawn", 768, 512),
    ("A white castle in the snow at night", 256, 768),
    ("A blorptastic purple dragon zzyx in the city, trending", 512, 512),
)


def main() -> None:
    """Read the command line, generate, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--model", type=Path, default=Path("service/demo"))
    parser.add_argument("--guidance", type=float, default=7.5)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    pipe: Any = StableDiffusionPipeline.from_pretrained(options.model).to("cpu", torch.float32)
    pipe.set_progress_bar_config(disable=True)
    made, texts = [], []
    for text, width, height in ASKED:
        began = time.monotonic()
        out = pipe(
            text,
            width=width,
            height=height,
            num_inference_steps=20,
            guidance_scale=options.guidance,
            generator=torch.Generator().manual_seed(options.seed),
        )
        seconds = time.monotonic() - began
        made.append(out.images[0])
        texts.append(f"{text} ({width}x{height})")
        print(f"{seconds:.2f} s  {texts[-1]}", flush=True)
    sheet(made, texts, columns=4, side=384).save(options.file, quality=90)


if __name__ == "__main__":
    main()
