"""Input images of a request as the engine takes them."""

from typing import Final

from PIL import Image, ImageFilter, ImageOps

from service.core.inputs import EngineInputs, MaskFill, Resize
from service.core.spec import GenerationSpec
from service.images.canvas import Canvas, Size, canvas_of, resized

BLURS: Final = ((256, 1), (64, 1), (16, 2), (4, 4), (2, 2), (0, 1))
"""Radius in pixels, and how often it is laid over the wider ones (AUTOMATIC1111, masking.py)."""


def prepared(image: bytes, mask: bytes, request: GenerationSpec) -> EngineInputs:
    """Return the input images of a request in its size; ``mask`` is empty for none.

    With a mask padding they are the part around what is repainted, as diffusers prepares it.

    Raises:
        ValueError: they cannot be decoded.

    """
    drawn, covered = fitted(canvas_of(image, mask, request), request)
    if covered is None:
        return EngineInputs(image=drawn.tobytes())
    if request.mask_fill == MaskFill.BLUR:
        drawn = _blurred_in(drawn, covered)
    return EngineInputs(image=drawn.tobytes(), mask=covered.tobytes())


def fitted(canvas: Canvas, request: GenerationSpec) -> tuple[Image.Image, Image.Image | None]:
    """Return the image and the mask in the size of a request."""
    size: Size = (request.width, request.height)
    mode, image, mask = request.resize, canvas.image, canvas.mask
    if mask is not None and canvas.region is not None:
        # Of the wanted shape already, as far as the image reaches.
        mode, image, mask = Resize.FILL, image.crop(canvas.region), mask.crop(canvas.region)
    return resized(image, size, mode), None if mask is None else resized(mask, size, mode)


def _blurred_in(image: Image.Image, mask: Image.Image) -> Image.Image:
    """Return an image with the colours around a mask in it (AUTOMATIC1111, masking.fill)."""
    around = Image.new("RGBa", image.size)
    around.paste(image.convert("RGBA").convert("RGBa"), mask=ImageOps.invert(mask))
    found = Image.new("RGBA", image.size)
    for radius, times in BLURS:
        blurred = around.filter(ImageFilter.GaussianBlur(radius)).convert("RGBA")
        for _ in range(times):
            found.alpha_composite(blurred)
    return found.convert("RGB")
