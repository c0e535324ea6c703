"""Input images for parity checks: made from their digests, so that a request says all."""

from typing import Final

import numpy as np
from PIL import Image

from service.core.inputs import EngineInputs, InputImage
from service.core.spec import GenerationSpec

CELLS: Final = 4
"""Colours along a side, between which an image passes smoothly."""


def reference(number: int, width: int = 32, height: int = 32) -> InputImage:
    """Return a reference to an image of this number."""
    return InputImage(digest=f"{number:064x}", width=width, height=height)


def picture(image: InputImage, size: tuple[int, int]) -> Image.Image:
    """Return the image in colours."""
    return _smooth(image, 3).resize(size, Image.Resampling.BICUBIC)


def mask(image: InputImage, size: tuple[int, int]) -> Image.Image:
    """Return the mask, in greys of all levels."""
    return _smooth(image, 1).resize(size, Image.Resampling.BICUBIC)


def engine_inputs(request: GenerationSpec) -> EngineInputs | None:
    """Return the pixels of a request's images; None for none."""
    if request.image is None:
        return None
    size = request.width, request.height
    return EngineInputs(
        image=picture(request.image, size).tobytes(),
        mask=mask(request.mask, size).tobytes() if request.mask else b"",
    )


def _smooth(image: InputImage, colours: int) -> Image.Image:
    shape = (CELLS, CELLS, colours)
    levels = np.random.default_rng(int(image.digest, 16)).integers(0, 256, shape, np.uint8)
    return Image.fromarray(levels.squeeze())
