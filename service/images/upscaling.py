"""Images enlarged without a model, as AUTOMATIC1111's upscaler "Lanczos" does it."""

from dataclasses import dataclass
from typing import Final

from PIL import Image

from service.core.inputs import Resize
from service.images.canvas import LANCZOS, Size, resized

MULTIPLE: Final = 8
"""Pixels; sides that follow from a factor are multiples of it (modules/upscaler.py)."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """The size that an image gets: so many times its own, or one in pixels."""

    scale: float = 0.0
    """0 for a size in pixels."""
    width: int = 0
    height: int = 0
    crop: bool = True
    """Whether an image of another shape is cut to the size; else it covers it."""

    def size(self, width: int, height: int) -> Size:
        """Return the width and height in pixels for an image of this size."""
        if not self.scale and self.crop:
            return self.width, self.height
        scale = self.scale or max(self.width / width, self.height / height)
        wide, high = (max(int(side * scale) // MULTIPLE, 1) for side in (width, height))
        return wide * MULTIPLE, high * MULTIPLE


def upscaled(image: Image.Image, target: Target) -> Image.Image:
    """Return an image in another size, by Lanczos; what is beyond the size is cut off evenly."""
    size = target.size(*image.size)
    if not target.scale and target.crop:
        return resized(image, size, Resize.CROP)
    return image.resize(size, LANCZOS)
