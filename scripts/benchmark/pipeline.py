"""The diffusers pipeline as the servers beside the service use it."""

import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from PIL import Image

from scripts.cards import plain
from service.config import load
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
    """A loaded pipeline, built by diffusers alone under the settings that the service obeys.

    So all servers compute in the same number format, on the same device, with the same
    attention kernel, and decode in the same memory layout: what differs is who computes what
    when. None of it is the service's code, whose faults a reference must not share.
    """

    def __init__(self, model_id: str, threads: int) -> None:
        config = load(os.environ)
        if threads:
            torch.set_num_threads(threads)
        self._pipeline = plain.load(catalog.resolve(model_id, config.model_cache_dir), config)
        if config.device == "cpu" or not torch.cuda.is_available():
            self._pipeline.vae.to(memory_format=torch.channels_last)
        self._always, self._above = config.vae_tiling, config.vae_tiling_above

    def draw(self, orders: Sequence[Order]) -> list[Image.Image]:
        """Make images in one call; size, steps and guidance scale are those of the first."""
        first = orders[0]
        self._tile(max(first.width, first.height))
        images: list[Image.Image] = self._pipeline(
            [order.prompt for order in orders],
            width=first.width,
            height=first.height,
            num_inference_steps=first.steps,
            guidance_scale=first.guidance_scale,
            generator=[torch.Generator("cpu").manual_seed(order.seed) for order in orders],
        ).images
        return images

    def _tile(self, side: int) -> None:
        """Decode in tiles above VAE_TILING_ABOVE, with tiles of that size, and whole below."""
        vae, tiled = self._pipeline.vae, 0 < self._above < side
        if tiled:
            factor = self._pipeline.vae_scale_factor
            vae.tile_sample_min_size = self._above
            vae.tile_latent_min_size = self._above // factor
            if hasattr(vae, "spatial_scale_factor"):
                # AutoencoderTiny has 8 there, whatever its own factor is.
                vae.spatial_scale_factor = factor
        if tiled or self._always:
            vae.enable_tiling()
        else:
            vae.disable_tiling()


def png(picture: Image.Image) -> bytes:
    """Return the file, packed as the service packs it."""
    file = io.BytesIO()
    picture.save(file, "PNG", compress_type=Z_RLE)
    return file.getvalue()
