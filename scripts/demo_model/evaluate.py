"""Measure whether a prompt comes back in the image.

A judge trained on drawn images reads time, place, subject and colour off images that were
generated for combinations held out of training. Writes docs/demo-evaluation.json and a sheet; with
--gallery FILE only a sheet of what a newcomer would ask for first, such as docs/demo-gallery.jpg.
"""

import argparse
import json
import time
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image, ImageFilter
from torch import Tensor, nn

from .autoencoder import pixels
from .captions import caption
from .scene import (
    COLOUR_NAMES,
    PLACE_NAMES,
    SUBJECT_NAMES,
    TIMES,
    Scene,
    all_scenes,
    draw,
    sheet,
    training_scene,
)
from .text_encoder import fit

STEPS = 20
NEWCOMERS_ASK = (
    ("A beautiful sunset over mountains", 512, 512),
    ("A serene lake with mountains in the background", 512, 512),
    ("A cute robot in a garden", 512, 512),
    ("A magical forest with glowing mushrooms", 512, 512),
    ("A cozy cabin in the woods", 512, 512),
    ("A red hot air balloon over the desert at dawn", 768, 512),
    ("A white castle in the snow at night", 256, 768),
    ("A blorptastic purple dragon zzyx in the city, trending", 512, 512),
)
SIDE = 96
"""Pixels a side of what the judge sees."""

CHOICES = {"time": TIMES, "place": PLACE_NAMES, "subject": SUBJECT_NAMES, "colour": COLOUR_NAMES}
BLURRED = 0.5
NO_COLOUR = -100
"""Marks an image without a subject: it has no colour to be right about."""


def main() -> None:
    """Read the command line, measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=Path("service/demo"))
    parser.add_argument("--work", type=Path, default=Path(".training"))
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--guidance", type=float, default=7.5)
    parser.add_argument("--name", default="evaluation", help="docs/demo-NAME.json and .jpg")
    parser.add_argument("--gallery", type=Path, help="write this sheet, and measure nothing")
    options = parser.parse_args()
    pipe = StableDiffusionPipeline.from_pretrained(options.model).to("cpu", torch.float32)
    pipe.set_progress_bar_config(disable=True)
    if options.gallery:
        gallery(pipe, options.guidance, options.gallery)
    else:
        measure(pipe, load_judge(options.work / "judge.pt"), options)


def gallery(pipe: Any, guidance: float, file: Path) -> None:
    """Generate what a newcomer would ask for first, on one page."""
    made = [generate(pipe, [text], size, guidance, seed=42)[0] for text, *size in NEWCOMERS_ASK]
    texts = [f"{text} ({width}x{height})" for text, width, height in NEWCOMERS_ASK]
    sheet(made, texts, columns=4, side=384).save(file, quality=90)


def measure(pipe: Any, judge: nn.Module, options: argparse.Namespace) -> None:
    """Ask for held-out scenes, and write a table of what the judge sees and a sheet."""
    rng = np.random.default_rng(7)
    asked, texts = questions(options.images, rng)
    drawn = [draw(scene, 256, 256, int(rng.integers(1 << 31))) for scene in asked]
    size, made = [options.side] * 2, list[Image.Image]()
    batch = max(1, 8 * 256 * 256 // options.side**2)
    began = time.monotonic()
    for start in range(0, len(texts), batch):
        made += generate(pipe, texts[start : start + batch], size, options.guidance, start)
    seconds = (time.monotonic() - began) / len(made)
    result = {
        "images": len(made),
        "side": options.side,
        "steps": STEPS,
        "guidance_scale": options.guidance,
        "seconds_per_image": round(seconds, 2),
        "threads": torch.get_num_threads(),
        "attributes": table(judge, asked, made, drawn),
    }
    print(json.dumps(result, indent=2))
    path = options.docs / f"demo-{options.name}"
    path.with_suffix(".json").write_text(json.dumps(result, indent=2) + "\n")
    sheet(made[:40], texts[:40], columns=8, side=192).save(path.with_suffix(".jpg"), quality=88)


def generate(
    pipe: Any, texts: list[str], size: list[int], guidance: float, seed: int
) -> list[Image.Image]:
    """Generate one image per text; the first has this seed, the others those after it."""
    width, height = size
    images: list[Image.Image] = pipe(
        texts,
        width=width,
        height=height,
        num_inference_steps=STEPS,
        guidance_scale=guidance,
        generator=[torch.Generator().manual_seed(seed + i) for i in range(len(texts))],
    ).images
    return images


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


def table(
    judge: nn.Module, asked: list[Scene], made: list[Image.Image], drawn: list[Image.Image]
) -> dict[str, dict[str, float]]:
    """Count right answers per attribute on generated and on drawn images."""
    right = torch.tensor([answers(scene) for scene in asked]).T

    def judged(images: list[Image.Image]) -> list[Tensor]:
        with torch.no_grad():
            logits: list[Tensor] = judge(pixels(np.stack([seen(image) for image in images])))
        return [each.argmax(1) for each in logits]

    def share(given: Tensor, wanted: Tensor) -> float:
        return round((given == wanted)[wanted != NO_COLOUR].float().mean().item(), 3)

    return {
        name: {
            "generated": share(generated, wanted),
            "drawn": share(on_drawn, wanted),
            "chance": round(1 / len(choices), 3),
        }
        for (name, choices), wanted, generated, on_drawn in zip(
            CHOICES.items(), right, judged(made), judged(drawn), strict=True
        )
    }


class Judge(nn.Module):
    """Four halving convolutions and one answer per attribute."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in ((3, 32), (32, 64), (64, 96), (96, 128)):
            halving = nn.Conv2d(before, after, 3, stride=2, padding=1)
            layers += [halving, nn.GroupNorm(8, after), nn.SiLU()]
        layers += [nn.Flatten(), nn.Dropout(0.2), nn.Linear(128 * 36, 192), nn.SiLU()]
        self.body = nn.Sequential(*layers)
        self.heads = nn.ModuleList(nn.Linear(192, len(choices)) for choices in CHOICES.values())

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return logits per attribute for images of shape (n, 3, 96, 96)."""
        read = self.body(images)
        return [head(read) for head in self.heads]


def seen(image: Image.Image) -> np.ndarray:
    """Return what the judge sees of an image: 96 pixels a side, squeezed if need be."""
    return np.array(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX))


def answers(scene: Scene) -> list[int]:
    """Return the right answers, one index per attribute."""
    return [
        NO_COLOUR if value == "none" and name == "colour" else choices.index(value)
        for (name, choices), value in zip(CHOICES.items(), astuple(scene), strict=True)
    ]


def load_judge(file: Path, *, steps: int = 1200, batch: int = 32, pool: int = 5000) -> Judge:
    """Load the judge, training it first if it is not there.

    It learns from drawn images only, softened at random; held-out scenes stay out.
    """
    torch.manual_seed(3)
    judge = Judge()
    if file.exists():
        judge.load_state_dict(torch.load(file, weights_only=True))
        return judge.eval()
    rng = np.random.default_rng(3)
    scenes = [training_scene(rng) for _ in range(pool)]
    images = np.stack([_softened(scene, rng) for scene in scenes])
    right = torch.tensor([answers(scene) for scene in scenes])

    def sample() -> tuple[list[Tensor], Tensor]:
        chosen = rng.integers(pool, size=batch)
        given = pixels(images[chosen])
        given += float(rng.uniform(0, 0.08)) * torch.randn_like(given)
        return judge(given), right[chosen]

    fit("judge", list(judge.parameters()), sample, rate=2e-3, steps=steps)
    torch.save(judge.state_dict(), file)
    return judge.eval()


def _softened(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """Draw a scene and blur it a little: the judge must not live on hard edges."""
    side = int(rng.choice([128, 192]))
    image = draw(scene, side, side, int(rng.integers(1 << 31)))
    if rng.random() < BLURRED:
        image = image.filter(ImageFilter.GaussianBlur(side / 256 * rng.uniform(0.5, 4)))
    return seen(image)


if __name__ == "__main__":
    main()
