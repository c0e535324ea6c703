"""The diffusers pipeline as the servers beside the service use it."""

import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from PIL import Image

from scripts.benchmark.rows import SAMPLER
from service.config import load
from service.diffusion.load import load_model
from service.diffusion.samplers import build
from service.diffusion.tiles import Tiles
from service.http.pictures import Z_RLE
from service.models import catalog


@dataclass(frozen=True, kw_only=True)
class Order:
    """One picture that a client asks for."""

    prompt: str
    width: int
    height: int
    steps: int
    seed: int
    guidance_scale: float

    @classmethod
    def parsed(cls, body: Mapping[str, Any]) -> Self:
        """Read a request's body."""
        return cls(**{name: body[name] for name in cls.__dataclass_fields__})


class Pipeline:
    """A loaded pipeline; the loader is the service's own, and so are the settings that it reads.

    So all servers compute in the same number format, on the same device, with the same
    attention kernel, and decode in the same memory layout: what differs is who computes what
    when.
    """

    def __init__(self, model_id: str, threads: int) -> None:
        config = load(os.environ)
        cache = Path(config.model_cache_dir)
        model = load_model(
            catalog.resolve(model_id, cache),
            cache_dir=cache,
            device=config.device,
            dtype=config.dtype,
            threads=threads,
            attention_slicing=config.attention_slicing,
            cpu_offload=config.cpu_offload,
            vram_limit_gb=config.vram_limit_gb,
            vae_tiling=config.vae_tiling,
        )
        self._pipeline = model.pipeline
        self._factor = self._pipeline.vae_scale_factor
        self._tiles = Tiles(self._pipeline.vae, self._factor, above=config.vae_tiling_above)
        self._pipeline.scheduler = build(SAMPLER, self._pipeline.scheduler.config)

    def draw(self, orders: Sequence[Order]) -> list[Image.Image]:
        """Make pictures in one call; size, steps and guidance scale are those of the first."""
        first = orders[0]
        sides = first.height // self._factor, first.width // self._factor
        with self._tiles.applied(torch.empty(1, 1, *sides, device="meta")):
            pictures: list[Image.Image] = self._pipeline(
                [order.prompt for order in orders],
                width=first.width,
                height=first.height,
                num_inference_steps=first.steps,
                guidance_scale=first.guidance_scale,
                generator=[torch.Generator("cpu").manual_seed(order.seed) for order in orders],
            ).images
        return pictures


def png(picture: Image.Image) -> bytes:
    """Return the file, packed as the service packs it."""
    file = io.BytesIO()
    picture.save(file, "PNG", compress_type=Z_RLE)
    return file.getvalue()
