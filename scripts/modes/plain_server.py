"""A plain server around the diffusers pipeline of one mode: one image at a time.

    MODEL_ID=demo python -m scripts.modes.plain_server inpaint 8001

It takes the bodies that the service takes, of this mode.
"""

import asyncio
import io
import os
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import torch
from aiohttp import web
from diffusers import AutoPipelineForImage2Image, AutoPipelineForInpainting
from PIL import Image

from scripts.cards import plain
from scripts.modes.requests import image_of
from service.config.loading import load
from service.images.packing import Z_RLE
from service.models import catalog

LARGEST: Final = 2**26
"""Bytes of a body."""


class Pipelines:
    """The pipelines that a mode needs, around one model."""

    def __init__(self, mode: str) -> None:
        config = load(os.environ)
        if config.torch_threads:
            torch.set_num_threads(config.torch_threads)
        self._mode = mode
        self._text = plain.load(catalog.resolve(config.model_id, config.model_cache_dir), config)
        self._image: Any = AutoPipelineForImage2Image.from_pipe(self._text)
        self._part: Any = AutoPipelineForInpainting.from_pipe(self._text)
        for each in (self._image, self._part):
            each.set_progress_bar_config(disable=True)

    def draw(self, body: Mapping[str, Any]) -> bytes:
        """Return the image of a request as PNG."""
        size = {"width": body["width"], "height": body["height"]}
        match self._mode:
            case "text":
                images = self._text(**_asked(body), **size).images
            case "img2img":
                images = self._image(
                    **_asked(body), image=image_of(body["image"]), strength=body["strength"]
                ).images
            case "inpaint":
                images = self._inpainted(body, size)
            case _:
                images = self._in_two_passes(body, size)
        file = io.BytesIO()
        images[0].save(file, "PNG", compress_type=Z_RLE)
        return file.getvalue()

    def _inpainted(self, body: Mapping[str, Any], size: Mapping[str, int]) -> list[Image.Image]:
        image, mask = image_of(body["image"]), image_of(body["mask"])
        blurred = self._part.mask_processor.blur(mask, blur_factor=body["mask_blur"])
        drawn = self._part(
            **_asked(body), **size, image=image, mask_image=blurred, strength=body["strength"]
        ).images
        processor = self._part.image_processor
        return [processor.apply_overlay(blurred, image.convert("RGB"), each) for each in drawn]

    def _in_two_passes(self, body: Mapping[str, Any], size: Mapping[str, int]) -> list[Image.Image]:
        second = body["hires"]
        latents = self._text(**_asked(body), **size, output_type="latent").images
        larger = torch.nn.functional.interpolate(
            latents, scale_factor=second["scale"], mode="bilinear", antialias=False
        )
        found: list[Image.Image] = self._image(
            **_asked(body), image=larger, strength=second["strength"]
        ).images
        return found


def _asked(body: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "prompt": body["prompt"],
        "num_inference_steps": body["steps"],
        "guidance_scale": body["guidance_scale"],
        "generator": torch.Generator("cpu").manual_seed(body["seed"]),
    }


def app(mode: str) -> web.Application:
    """Return the server; a lock lets one request after the other use the pipeline."""
    pipelines, free = Pipelines(mode), asyncio.Lock()
    # Always the same thread: torch keeps a pool of its own for each that calls it.
    thread = ThreadPoolExecutor(max_workers=1)

    async def generate(request: web.Request) -> web.Response:
        body = await request.json()
        async with free:
            loop = asyncio.get_running_loop()
            file = await loop.run_in_executor(thread, pipelines.draw, body)
        return web.Response(body=file, content_type="image/png")

    async def health(_request: web.Request) -> web.Response:
        return web.Response(text="ok")

    found = web.Application(client_max_size=LARGEST)
    found.add_routes([web.post("/generate", generate), web.get("/health", health)])
    return found


if __name__ == "__main__":
    web.run_app(
        app(sys.argv[1]), host="127.0.0.1", port=int(sys.argv[2]), access_log=None, print=None
    )
