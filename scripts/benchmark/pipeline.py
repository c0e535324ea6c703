"""The diffusers pipeline as the servers that the service is compared with use it."""

import io
import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image

from scripts.cards import plain
from service.config.loading import load
from service.images.packing import Z_RLE
from service.models import catalog

Body = Mapping[str, Any]
"""A request as the service takes it."""


class Pipeline:
    """A loaded pipeline, built by diffusers alone under the settings that the service obeys.

    So all servers compute in the same number format, on the same device, with the same
    attention kernel, and decode in the same memory layout: what differs is who computes what
    when. None of it is the service's code, whose faults a reference must not share.
    """

    def __init__(self) -> None:
        config = load(os.environ)
        if config.torch_threads:
            torch.set_num_threads(config.torch_threads)
        source = catalog.resolve(config.model_id, config.model_cache_dir)
        self._pipeline = plain.load(source, config)
        if config.device == "cpu" or not torch.cuda.is_available():
            self._pipeline.vae.to(memory_format=torch.channels_last)
        self._always, self._above = config.vae_tiling, config.vae_tiling_above

    def draw(self, bodies: Sequence[Body]) -> list[Image.Image]:
        """Make images in one call; size, steps and guidance scale are those of the first."""
        first = bodies[0]
        self._tile(max(first["width"], first["height"]))
        images: list[Image.Image] = self._pipeline(
            [body["prompt"] for body in bodies],
            width=first["width"],
            height=first["height"],
            num_inference_steps=first["steps"],
            guidance_scale=first["guidance_scale"],
            generator=[torch.Generator("cpu").manual_seed(body["seed"]) for body in bodies],
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


def png(image: Image.Image) -> bytes:
    """Return the file, packed as the service packs it."""
    file = io.BytesIO()
    image.save(file, "PNG", compress_type=Z_RLE)
    return file.getvalue()
