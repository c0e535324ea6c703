"""Measure whether a prompt comes back in the picture.

A judge trained on drawn pictures reads time, place, subject and colour off pictures that were
generated for combinations held out of training. Writes docs/demo-evaluation.json and a sheet.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

from .captions import caption
from .classifier import CHOICES, NO_COLOUR, Judge, answers, judge, train_judge
from .scene import Scene, all_scenes, draw
from .sheet import sheet

STEPS = 20
Table = dict[str, dict[str, float]]


def main() -> None:
    """Read the command line, measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=Path("service/demo"))
    parser.add_argument("--work", type=Path, default=Path(".training"))
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    parser.add_argument("--pictures", type=int, default=500)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--guidance", type=float, default=7.5)
    parser.add_argument("--name", default="evaluation", help="docs/demo-NAME.json and .jpg")
    options = parser.parse_args()
    model = load_judge(options.work / "judge.pt")
    pipe = StableDiffusionPipeline.from_pretrained(options.model).to("cpu", torch.float32)
    pipe.set_progress_bar_config(disable=True)
    rng = np.random.default_rng(7)
    asked, texts = questions(options.pictures, rng)
    drawn = [draw(scene, 256, 256, int(rng.integers(1 << 31))) for scene in asked]
    began = time.monotonic()
    made = generate(pipe, texts, options.side, options.guidance)
    seconds = (time.monotonic() - began) / len(made)
    result = {
        "pictures": len(made),
        "side": options.side,
        "steps": STEPS,
        "guidance_scale": options.guidance,
        "seconds_per_picture": round(seconds, 2),
        "threads": torch.get_num_threads(),
        "attributes": table(model, asked, made, drawn),
    }
    print(json.dumps(result, indent=2))
    (options.docs / f"demo-{options.name}.json").write_text(json.dumps(result, indent=2) + "\n")
    sheet(made[:40], texts[:40], columns=8, side=192).save(
        options.docs / f"demo-{options.name}.jpg", quality=88
    )


def load_judge(file: Path) -> Judge:
    """Load the judge, training it first if it is not there."""
    if not file.exists():
        return train_judge(file)
    model = Judge()
    model.load_state_dict(torch.load(file, weights_only=True))
    return model.eval()


def questions(count: int, rng: np.random.Generator) -> tuple[list[Scene], list[str]]:
    """Return held-out scenes, and captions that say all of each."""
    scenes = [scene for scene in all_scenes() if scene.held_out]
    asked = [scenes[int(rng.integers(len(scenes)))] for _ in range(count)]
    texts = []
    for scene in asked:
        text = caption(scene, rng)
        while text.said != scene:
            text = caption(scene, rng)
        texts.append(text.text)
    return asked, texts


def generate(
    pipe: StableDiffusionPipeline, texts: list[str], side: int, guidance: float
) -> list[Image.Image]:
    """Generate one picture per text, in batches; the seed is the text's number."""
    batch = max(1, 8 * 256 * 256 // side**2)
    made: list[Image.Image] = []
    for start in range(0, len(texts), batch):
        some = texts[start : start + batch]
        generators = [torch.Generator().manual_seed(start + i) for i in range(len(some))]
        out: Any = pipe(
            some,
            width=side,
            height=side,
            num_inference_steps=STEPS,
            guidance_scale=guidance,
            generator=generators,
        )
        made += out.images
    return made


def table(
    model: Judge, asked: list[Scene], made: list[Image.Image], drawn: list[Image.Image]
) -> Table:
    """Count right answers per attribute on generated and on drawn pictures."""
    right = torch.tensor([answers(scene) for scene in asked])
    given, given_drawn = judge(model, made), judge(model, drawn)
    rows = {}
    for number, (name, choices) in enumerate(CHOICES.items()):
        counted = right[:, number] != NO_COLOUR
        rows[name] = {
            "generated": _share(given[counted, number] == right[counted, number]),
            "drawn": _share(given_drawn[counted, number] == right[counted, number]),
            "chance": round(1 / len(choices), 3),
        }
    return rows


def _share(hits: torch.Tensor) -> float:
    return round(hits.float().mean().item(), 3)


if __name__ == "__main__":
    main()
