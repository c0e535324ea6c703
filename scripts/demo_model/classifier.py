"""An independent judge: a small network that reads the attributes off a picture."""

from dataclasses import astuple
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import Tensor, nn

from .scene import COLOUR_NAMES, PLACE_NAMES, SUBJECT_NAMES, TIMES, Scene, draw, training_scene

SIDE = 96
"""Pixels a side of what the judge sees."""

CHOICES = {
    "time": TIMES,
    "place": PLACE_NAMES,
    "subject": SUBJECT_NAMES,
    "colour": COLOUR_NAMES,
}
REPORT_EVERY = 100
BLURRED = 0.5
NO_COLOUR = -100
"""Marks a picture without a subject: it has no colour to be right about."""


class Judge(nn.Module):
    """Four halving convolutions and one answer per attribute."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in ((3, 32), (32, 64), (64, 96), (96, 128)):
            layers += [
                nn.Conv2d(before, after, 3, stride=2, padding=1),
                nn.GroupNorm(8, after),
                nn.SiLU(),
            ]
        self.body = nn.Sequential(
            *layers, nn.Flatten(), nn.Dropout(0.2), nn.Linear(128 * 36, 192), nn.SiLU()
        )
        self.heads = nn.ModuleList(nn.Linear(192, len(choices)) for choices in CHOICES.values())

    def forward(self, pictures: Tensor) -> list[Tensor]:
        """Return logits per attribute for pictures of shape (n, 3, 96, 96)."""
        seen = self.body(pictures)
        return [head(seen) for head in self.heads]


def seen(picture: Image.Image) -> np.ndarray:
    """Return what the judge sees of a picture: 96 pixels a side, squeezed if need be."""
    return np.array(picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX))


def answers(scene: Scene) -> list[int]:
    """Return the right answers, one index per attribute."""
    return [
        NO_COLOUR if value == "none" and name == "colour" else choices.index(value)
        for (name, choices), value in zip(CHOICES.items(), astuple(scene), strict=True)
    ]


def judge(model: Judge, pictures: list[Image.Image]) -> Tensor:
    """Return the answers given, of shape (pictures, 4)."""
    batch = torch.from_numpy(np.stack([seen(picture) for picture in pictures]))
    with torch.no_grad():
        logits = model(batch.permute(0, 3, 1, 2).float() / 127.5 - 1)
    return torch.stack([each.argmax(1) for each in logits], 1)


def train_judge(file: Path, *, steps: int = 1200, batch: int = 32, pool: int = 5000) -> Judge:
    """Train on drawn pictures only, softened at random; held-out scenes stay out."""
    torch.manual_seed(3)
    rng = np.random.default_rng(3)
    model = Judge()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    scenes = [training_scene(rng) for _ in range(pool)]
    pictures = np.stack([_softened(scene, rng) for scene in scenes])
    for step in range(steps):
        chosen = rng.integers(pool, size=batch)
        seen_now = torch.from_numpy(pictures[chosen]).permute(0, 3, 1, 2).float() / 127.5 - 1
        seen_now += float(rng.uniform(0, 0.08)) * torch.randn_like(seen_now)
        targets = torch.tensor([answers(scenes[i]) for i in chosen])
        losses = [
            nn.functional.cross_entropy(given, right, ignore_index=NO_COLOUR)
            for given, right in zip(model(seen_now), targets.T, strict=True)
        ]
        loss = torch.stack(losses).sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        if (step + 1) % REPORT_EVERY == 0:
            print(f"judge {step + 1} loss {loss.item():.3f}", flush=True)
    torch.save(model.state_dict(), file)
    return model.eval()


def _softened(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """Draw a scene and blur it a little: the judge must not live on hard edges."""
    side = int(rng.choice([128, 192]))
    picture = draw(scene, side, side, int(rng.integers(1 << 31)))
    if rng.random() < BLURRED:
        picture = picture.filter(ImageFilter.GaussianBlur(side / 256 * rng.uniform(0.5, 4)))
    return seen(picture)
