"""Drawn pictures as latents, kept on disk so that each is encoded once."""

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import islice
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderTiny
from torch import Tensor

from .autoencoder import pixels
from .scene import Scene, draw, training_scene

Size = tuple[int, int]
"""Width and height in pixels."""

AT_ONCE = 8


@dataclass(frozen=True)
class Latents:
    """Scenes, and their latents of shape (pictures, 4, height / 8, width / 8) in fp16."""

    scenes: list[Scene]
    values: Tensor


def latents(folder: Path, vae: AutoencoderTiny, size: Size, count: int) -> Latents:
    """Load the latents of one size, or draw and encode them first."""
    width, height = size
    file = folder / f"latents-{width}x{height}.pt"
    rng = np.random.default_rng([width, height])
    scenes = [training_scene(rng) for _ in range(count)]
    if file.exists():
        values = torch.load(file, weights_only=True)
    else:
        orders = [(s, size, int(rng.integers(1 << 31))) for s in scenes]
        # Two helpers draw while this process encodes.
        with ProcessPoolExecutor(2, mp_context=get_context("fork")) as helpers:
            drawn = helpers.map(_drawn, orders, chunksize=AT_ONCE)
            values = torch.cat([_encoded(vae, list(some)) for some in batched(drawn)])
        torch.save(values, file)
    return Latents(scenes, values)


def batched(pictures: Iterator[np.ndarray]) -> Iterator[tuple[np.ndarray, ...]]:
    """Yield the pictures in groups small enough to encode at once."""
    while some := tuple(islice(pictures, AT_ONCE)):
        yield some


def _drawn(order: tuple[Scene, Size, int]) -> np.ndarray:
    scene, (width, height), seed = order
    return np.array(draw(scene, width, height, seed))


def _encoded(vae: AutoencoderTiny, pictures: list[np.ndarray]) -> Tensor:
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        encoded: Tensor = vae.encoder(pixels(np.stack(pictures)))
    return encoded.half()
