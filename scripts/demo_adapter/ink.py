"""Train the LoRA "ink" of the demo model: its scenes as ink drawings on paper.

Run from the repository's root: python -m scripts.demo_adapter.ink --minutes 10. It draws scenes,
turns them into ink, and trains two small matrices for each layer of the UNet; the model itself
does not change. With --sheet FILE it only draws what the adapter does.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from diffusers import AutoencoderTiny, DDPMScheduler, UNet2DConditionModel
from PIL import Image, ImageFilter
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPTextModel, CLIPTokenizer

from scripts.demo_model.autoencoder import pixels
from scripts.demo_model.captions import caption
from scripts.demo_model.scene import draw, sheet, training_scene
from scripts.demo_model.text_encoder import tokens_of
from scripts.demo_model.unet import SCHEDULE
from service.config.table import Config
from service.core.events import JobFinished
from service.core.spec import Adapter, GenerationSpec
from service.diffusion.adapters.store import store_of
from service.diffusion.load import load_model
from service.diffusion.loop.step_loop import StepLoop
from service.models import catalog
from service.models.adapters.catalog import AdapterCatalog

RANK: Final = 4
RATE: Final = 2e-3
BATCH: Final = 4
SIDE: Final = 256
EMPTY_CAPTIONS: Final = 0.1
PAPER: Final = np.array((246, 240, 226), np.float32)
INK: Final = np.array((26, 28, 52), np.float32)
EDGES: Final = 2.2
"""How much darker an edge of the drawing is than the area next to it."""

PROMPTS: Final = (
    "A castle on a hill at night",
    "A cozy cabin in the woods",
    "A red boat on the sea at sunset",
    "A serene lake with mountains in the background",
)
PREFIX: Final = "lora_unet_"
TRIGGER: Final = "ink drawing"


def inked(image: Image.Image) -> np.ndarray:
    """Return a scene in ink on paper: its brightness in a few washes, and its edges as lines."""
    grey = np.asarray(image.convert("L").filter(ImageFilter.GaussianBlur(1)), np.float32) / 255
    down, right = np.gradient(grey)
    wash = np.round(grey**0.7 * 4) / 4
    light = np.clip(0.25 + 0.75 * wash - EDGES * np.hypot(down, right), 0, 1)[..., None]
    drawn: np.ndarray = (INK + (PAPER - INK) * light).astype(np.uint8)
    return drawn


class Added(nn.Module):
    """The two matrices that are trained for a layer, added to what it returns."""

    def __init__(self, layer: nn.Linear | nn.Conv2d) -> None:
        super().__init__()
        out, into, *kernel = layer.weight.shape
        self.down = nn.Parameter(torch.randn(RANK, into, *kernel) / (into**0.5))
        self.up = nn.Parameter(torch.zeros(out, RANK, *(1 for _ in kernel)))

    def forward(self, layer: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """Return the output with the change; it is a forward hook."""
        if isinstance(layer, nn.Linear):
            return output + functional.linear(functional.linear(inputs[0], self.down), self.up)
        middle = functional.conv2d(inputs[0], self.down, stride=layer.stride, padding=layer.padding)
        return output + functional.conv2d(middle, self.up)


def key_of(name: str) -> str:
    """Return the name that kohya's scripts give a layer of the UNet."""
    return PREFIX + name.replace(".", "_")


def trained(
    folder: Path, minutes: float, before: Path | None = None, seed: int = 5
) -> dict[str, Added]:
    """Return the matrices by the name of their layer, after so many minutes.

    ``before`` is a file to go on from.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    unet = UNet2DConditionModel.from_pretrained(folder / "unet").float().requires_grad_(False)
    vae = AutoencoderTiny.from_pretrained(folder / "vae").float()
    encoder = CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32)
    words = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    schedule = DDPMScheduler(**SCHEDULE)
    added = {
        name: Added(layer)
        for name, layer in unet.named_modules()
        if isinstance(layer, nn.Linear | nn.Conv2d) and "time_emb" not in name
    }
    for name, layer in unet.named_modules():
        if name in added:
            layer.register_forward_hook(added[name])
    if before is not None:
        known = load_file(before)
        for name, one in added.items():
            one.down.data = known[f"{key_of(name)}.lora_down.weight"].float()
            one.up.data = known[f"{key_of(name)}.lora_up.weight"].float()
    weights = [each for one in added.values() for each in one.parameters()]
    optimizer = torch.optim.AdamW(weights, RATE, weight_decay=0.0)
    started, step = time.monotonic(), 0
    while (share := (time.monotonic() - started) / (60 * minutes)) < 1:
        scenes = [training_scene(rng) for _ in range(BATCH)]
        drawn = [inked(draw(each, SIDE, SIDE, int(rng.integers(1 << 31)))) for each in scenes]
        texts = [
            caption(each, rng).text if rng.random() >= EMPTY_CAPTIONS else "" for each in scenes
        ]
        with torch.no_grad():
            clean = vae.encoder(pixels(np.stack(drawn))) * vae.config.scaling_factor
            states = encoder(tokens_of(words, texts)).last_hidden_state
        times = ((torch.randperm(BATCH) + torch.rand(1)) / BATCH * 1000).long()
        noise = torch.randn_like(clean)
        given = unet(schedule.add_noise(clean, noise, times), times, states).sample
        wanted = schedule.get_velocity(clean, noise, times)
        loss = functional.mse_loss(given, wanted)
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1, (step + 1) / 20) * (1 - share)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        step += 1
        if step % 20 == 0:
            print(f"ink {share:.0%} step {step} loss {loss.item():.4f}", flush=True)
    return added


def compared(file: Path) -> Image.Image:
    """Draw some prompts without the adapter and with it, from the same seeds, in one batch."""
    model = load_model(catalog.resolve(catalog.DEMO_ID, file.parent), Config())
    store = store_of(model, catalog=AdapterCatalog(file.parent))
    loop = StepLoop(model, batch_limit=2 * len(PROMPTS), adapters=store)
    ink = (Adapter(name=file.stem, weight=1.0, text_weight=1.0),)
    for number, prompt in enumerate(PROMPTS):
        plain = GenerationSpec(prompt=prompt, width=SIDE, height=SIDE, seed=1, guidance_scale=3.0)
        loop.add(f"{number}", plain)
        loop.add(f"{number} ink", replace(plain, adapters=ink))
    images: dict[str, Image.Image] = {}
    while loop.busy:
        for outcome in loop.step():
            if isinstance(outcome, JobFinished):
                (one,) = outcome.images
                size = (one.width, one.height)
                images[outcome.job_id] = Image.frombytes("RGB", size, one.pixels)
    numbers = range(len(PROMPTS))
    rows = [*(images[f"{n}"] for n in numbers), *(images[f"{n} ink"] for n in numbers)]
    texts = [*PROMPTS, *(f"the same, with {file.stem}" for _ in PROMPTS)]
    return sheet(rows, texts, columns=len(PROMPTS), side=SIDE)


def main() -> None:
    """Read the command line; train and write the file, or draw the sheet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=Path("service/demo"))
    parser.add_argument("--out", type=Path, default=Path("service/loras/ink.safetensors"))
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--start-from", type=Path, help="a file of this script, to go on from")
    parser.add_argument("--sheet", type=Path, help="only draw, without the adapter and with it")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.sheet:
        compared(options.out).save(options.sheet, optimize=True)
        return
    tensors: dict[str, Tensor] = {}
    found = trained(options.model, options.minutes, options.start_from)
    for name, one in found.items():
        key = key_of(name)
        tensors[f"{key}.lora_down.weight"] = one.down.detach().half().contiguous()
        tensors[f"{key}.lora_up.weight"] = one.up.detach().half().contiguous()
        tensors[f"{key}.alpha"] = torch.tensor(float(RANK))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"modelspec.trigger_phrase": TRIGGER, "ss_tag_frequency": json.dumps({})}
    save_file(tensors, options.out, metadata=metadata)
    print(options.out.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
