"""The autoencoder, trained on crops of drawn images, and drawn images as its latents."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderTiny
from torch import Tensor, nn
from torch.utils.data import DataLoader

from .scene import Scene, draw, training_scene

Size = tuple[int, int]
"""Width and height in pixels."""

WIDTH = 24
LATENT_CHANNELS = 4
RATE = 2.5e-3
CROP = 64
BATCH = 16
POOL = 120
ENCODED_AT_ONCE = 8
REPORT_EVERY = 100
CENTRED = 0.5
"""Crops that lie around the subject, which has the most detail."""

NOISE = 0.05
"""Added to latents in training: the decoder then forgives the errors of the denoiser."""


def build_autoencoder() -> AutoencoderTiny:
    """Build an untrained autoencoder, 8 pixels to a latent."""
    model = AutoencoderTiny(
        latent_channels=LATENT_CHANNELS,
        encoder_block_out_channels=(WIDTH,) * 4,
        decoder_block_out_channels=(WIDTH,) * 4,
        num_encoder_blocks=(1, 2, 2, 2),
        num_decoder_blocks=(3, 3, 2, 1),
    )
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            # There is no normalisation, so the start must neither explode nor fade.
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            module.weight.data.mul_(0.7)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return model


def pixels(images: np.ndarray) -> Tensor:
    """Turn bytes of shape (..., height, width, 3) into channels-last -1..1, channels first."""
    values = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
    return values.contiguous(memory_format=torch.channels_last)


def crops(rng: np.random.Generator) -> Iterator[Tensor]:
    """Yield batches of crops, of shape (16, 3, 64, 64), from an ever renewed pool."""

    def fresh() -> np.ndarray:
        width = int(rng.choice([256, 384, 512, 512]))
        height = int(rng.choice([width, width, 256, 384]))
        scene = training_scene(rng)
        return np.array(draw(scene, width, height, int(rng.integers(1 << 31))))

    pool = [fresh() for _ in range(POOL)]
    while True:
        for _ in range(4):
            pool[int(rng.integers(POOL))] = fresh()
            for _ in range(2):
                cut = [_crop(pool[int(rng.integers(POOL))], rng) for _ in range(BATCH)]
                yield pixels(np.stack(cut))


def _crop(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Cut out a square, 64 pixels a side."""
    height, width = image.shape[0] - CROP, image.shape[1] - CROP
    if rng.random() < CENTRED:
        y, x = rng.normal(0.68, 0.14) * height, rng.normal(0.5, 0.14) * width
    else:
        y, x = rng.random() * height, rng.random() * width
    top, left = int(np.clip(y, 0, height)), int(np.clip(x, 0, width))
    return image[top : top + CROP, left : left + CROP]


def train_autoencoder(folder: Path, *, minutes: float, seed: int = 1) -> None:
    """Train for some minutes and save the autoencoder in ``folder``."""
    torch.manual_seed(seed)
    model = build_autoencoder().to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE, betas=(0.9, 0.99))
    began, total, errors = time.monotonic(), 60 * minutes, []
    for step, target in enumerate(crops(np.random.default_rng(seed)), start=1):
        share = (time.monotonic() - began) / total
        if share >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1, step / 60) * (1 - share)
        with torch.autocast("cpu", torch.bfloat16):
            latents = model.encoder(target).float()
            image = model.decoder(latents + NOISE * torch.randn_like(latents)).float()
        error = (image - target).abs().mean()
        # The decoder squeezes latents beyond 3, so their spread is kept near 1.
        loss = error + 1e-3 * (latents.square().mean() - 1).abs()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        errors.append(error.item())
        if step % REPORT_EVERY == 0:
            mean = np.mean(errors[-REPORT_EVERY:])
            print(f"autoencoder {share:.0%} step {step} L1 {mean:.4f}", flush=True)
    model.save_pretrained(folder)


@dataclass(frozen=True)
class Latents:
    """Scenes, and their latents of shape (images, 4, height / 8, width / 8) in fp16."""

    scenes: list[Scene]
    values: Tensor


def latents(folder: Path, vae: AutoencoderTiny, size: Size, count: int) -> Latents:
    """Load the latents of one size, or draw and encode them first: each image only once."""
    file = folder / f"latents-{size[0]}x{size[1]}.pt"
    rng = np.random.default_rng(size)
    scenes = [training_scene(rng) for _ in range(count)]
    if not file.exists():

        def drawn(orders: list[tuple[Scene, int]]) -> np.ndarray:
            return np.stack([np.array(draw(scene, *size, seed)) for scene, seed in orders])

        orders = [(scene, int(rng.integers(1 << 31))) for scene in scenes]
        # Two helpers draw while this process encodes.
        images: Any = DataLoader(
            orders,  # type: ignore[arg-type]
            ENCODED_AT_ONCE,
            num_workers=2,
            collate_fn=drawn,
            multiprocessing_context="fork",
        )
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            encoded = [vae.encoder(pixels(some)).half() for some in images]
        torch.save(torch.cat(encoded), file)
    return Latents(scenes, torch.load(file, weights_only=True))
