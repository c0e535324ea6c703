"""Repainted parts put back into the image that they were taken from.

Parity: ``VaeImageProcessor.apply_overlay`` of diffusers. Where the mask is 0 the result is the
original, byte for byte; the original has been resized only where the whole of it was drawn.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Final

from PIL import Image, ImageOps

from service.core.image import RawImage
from service.core.spec import GenerationSpec
from service.images.canvas import Box, canvas_of, resized
from service.images.inputs import fitted
from service.images.packing import opened

STRIP: Final = 256
"""Rows that are mixed at a time: half a dozen copies of them are in memory."""

Paste = Callable[[RawImage], RawImage]


def pasting(image: bytes, mask: bytes, request: GenerationSpec) -> Paste:
    """Return what puts the images of a masked request back into its input image.

    Raises:
        ValueError: the inputs cannot be decoded.

    """
    canvas = canvas_of(image, mask, request)
    original, covered = canvas.image, canvas.mask
    if request.mask_padding < 0:
        original, covered = fitted(canvas, request)
    assert covered is not None  # noqa: S101 - a masked request has one
    return partial(_pasted, original=original, mask=covered, region=canvas.region)


def _pasted(
    drawn: RawImage, *, original: Image.Image, mask: Image.Image, region: Box | None
) -> RawImage:
    wide, high = original.size
    if drawn.unsafe:  # Blacked out: the rest of the image may be what was flagged.
        black = bytes(wide * high * 3)
        return replace(drawn, width=wide, height=high, pixels=black, packed=False)
    image = opened(drawn)
    left, top, right, bottom = region or (0, 0, wide, high)
    if image.size != (right - left, bottom - top):
        image = resized(image, (right - left, bottom - top), "crop")
    found = original.copy()
    for start in range(top, bottom, STRIP):
        box = (left, start, right, min(start + STRIP, bottom))
        part = image.crop((0, start - top, right - left, box[3] - top))
        found.paste(_mixed(part, original.crop(box), mask.crop(box)), (left, start))
    return replace(drawn, width=wide, height=high, pixels=found.tobytes(), packed=False)


def _mixed(image: Image.Image, original: Image.Image, mask: Image.Image) -> Image.Image:
    """Return an image under an original that shows where a mask is dark."""
    over = Image.new("RGBa", original.size)
    over.paste(original.convert("RGBA").convert("RGBa"), mask=ImageOps.invert(mask))
    found = image.convert("RGBA")
    found.alpha_composite(over.convert("RGBA"))
    return found.convert("RGB")
