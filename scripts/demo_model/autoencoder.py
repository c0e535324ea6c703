"""The autoencoder: a small AutoencoderTiny trained on crops of drawn pictures."""

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderTiny
from torch import Tensor, nn

from .scene import draw, training_scene

WIDTH = 24
LATENT_CHANNELS = 4
RATE = 2.5e-3
CROP = 64
BATCH = 16
POOL = 120
SAVE_EVERY = 100
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


def pixels(pictures: np.ndarray) -> Tensor:
    """Turn bytes of shape (..., height, width, 3) into channels-last -1..1, channels first."""
    values = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1
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
                yield pixels(
                    np.stack([_crop(pool[int(rng.integers(POOL))], rng) for _ in range(BATCH)])
                )


def _crop(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Cut out a square, 64 pixels a side."""
    height, width = picture.shape[0] - CROP, picture.shape[1] - CROP
    if rng.random() < CENTRED:
        y, x = rng.normal(0.68, 0.14) * height, rng.normal(0.5, 0.14) * width
    else:
        y, x = rng.random() * height, rng.random() * width
    top, left = int(np.clip(y, 0, height)), int(np.clip(x, 0, width))
    return picture[top : top + CROP, left : left + CROP]


def train_autoencoder(folder: Path, *, minutes: float, rate: float = RATE, seed: int = 1) -> None:
    """Train for some minutes, from the autoencoder in ``folder`` if there is one."""
    torch.manual_seed(seed)
    done = (folder / "config.json").exists()
    model = AutoencoderTiny.from_pretrained(folder) if done else build_autoencoder()
    model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate, betas=(0.9, 0.99))
    began, total, errors = time.monotonic(), 60 * minutes, []
    for step, target in enumerate(crops(np.random.default_rng(seed))):
        share = (time.monotonic() - began) / total
        if share >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1, (step + 1) / 60) * (1 - share)
        with torch.autocast("cpu", torch.bfloat16):
            latents = model.encoder(target).float()
            picture = model.decoder(latents + NOISE * torch.randn_like(latents)).float()
        error = (picture - target).abs().mean()
        # The decoder squeezes latents beyond 3, so their spread is kept near 1.
        loss = error + 1e-3 * (latents.square().mean() - 1).abs()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        errors.append(error.item())
        if (step + 1) % SAVE_EVERY == 0:
            mean = np.mean(errors[-SAVE_EVERY:])
            print(f"autoencoder {share:.0%} step {step + 1} L1 {mean:.4f}", flush=True)
            model.save_pretrained(folder)
    model.save_pretrained(folder)
