"""The image and the mask of a request as they are drawn on: padded, masked, cropped, resized.

Parity: diffusers' ``VaeImageProcessor``, whose functions are named below.
"""

from dataclasses import dataclass
from typing import Final

from PIL import Image, ImageChops, ImageFilter

from service.core.inputs import Pad, Resize
from service.core.spec import GenerationSpec
from service.images import decode

Box = tuple[int, int, int, int]
"""Left, top, right and bottom in pixels; the last two are behind the end."""
Size = tuple[int, int]

LANCZOS: Final = Image.Resampling.LANCZOS
NEAREST: Final = Image.Resampling.NEAREST
MOST_BETWEEN: Final = 2**24
"""Pixels of an image that is larger than what is left of it."""


@dataclass(frozen=True, kw_only=True)
class Canvas:
    """The whole image of a request, before it gets the size that is drawn."""

    image: Image.Image
    """RGB."""
    mask: Image.Image | None
    """8-bit grey, white where it is repainted, inverted and blurred; None for no mask."""
    region: Box | None
    """The part that is drawn; None for the whole."""


def canvas_of(image: bytes, mask: bytes, request: GenerationSpec) -> Canvas:
    """Decode the inputs of a request; ``mask`` is empty for none.

    Raises:
        ValueError: they cannot be decoded.

    """
    drawn = decode.colours(image)
    if not request.masked:
        return Canvas(image=drawn, mask=None, region=None)
    covered = _mask(mask, drawn.size, request)
    if request.pad is not None:
        drawn, covered = _extended(drawn, request.pad), _framed(covered, request.pad)
    if request.mask_blur:
        covered = covered.filter(ImageFilter.GaussianBlur(request.mask_blur))
    region = None
    if request.mask_padding >= 0:
        region = crop_region(covered, (request.width, request.height), request.mask_padding)
    return Canvas(image=drawn, mask=covered, region=region)


def _mask(mask: bytes, size: Size, request: GenerationSpec) -> Image.Image:
    """Return the mask over the image itself; without one nothing of it is repainted."""
    if not mask:
        return Image.new("L", size)
    found = decode.mask(mask)
    if found.size != size:
        found = found.resize(size, NEAREST)
    return ImageChops.invert(found) if request.mask_invert else found


def _extended(image: Image.Image, pad: Pad) -> Image.Image:
    """Return an image with its edges drawn out, left and right first."""
    found = _framed(image, pad)
    right, bottom = pad.left + image.width, pad.top + image.height
    for length, edge, place in ((pad.left, pad.left, 0), (pad.right, right - 1, right)):
        if length:
            line = found.crop((edge, 0, edge + 1, found.height))
            found.paste(line.resize((length, found.height), NEAREST), (place, 0))
    for length, edge, place in ((pad.top, pad.top, 0), (pad.bottom, bottom - 1, bottom)):
        if length:
            line = found.crop((0, edge, found.width, edge + 1))
            found.paste(line.resize((found.width, length), NEAREST), (0, place))
    return found


def _framed(image: Image.Image, pad: Pad) -> Image.Image:
    """Return an image with white around it."""
    wide, high = image.size
    size = (wide + pad.left + pad.right, high + pad.top + pad.bottom)
    found = Image.new(image.mode, size, "white")
    found.paste(image, (pad.left, pad.top))
    return found


def crop_region(mask: Image.Image, size: Size, padding: int) -> Box | None:
    """Return the part of an image around what a mask repaints, in the shape of ``size``.

    ``get_crop_region`` of diffusers; None where the mask repaints nothing.
    """
    found = mask.getbbox()
    if found is None:
        return None
    left, top, right, bottom = found
    left, top = max(left - padding, 0), max(top - padding, 0)
    right, bottom = min(right + padding, mask.width), min(bottom + padding, mask.height)
    shape = size[0] / size[1]
    if (right - left) / (bottom - top) > shape:
        top, bottom = _grown(top, bottom, (right - left) / shape, mask.height)
    else:
        left, right = _grown(left, right, (bottom - top) * shape, mask.width)
    return left, top, right, bottom


def _grown(start: int, end: int, wanted: float, most: int) -> tuple[int, int]:
    """Return a stretch as long as ``wanted``, around the same middle if there is room for that."""
    more = int(wanted - (end - start))
    start, end = start - more // 2, end + more - more // 2
    if end >= most:
        start, end = start - (end - most), most
    if start < 0:
        start, end = 0, end - start
    return start, min(end, most)


def resized(image: Image.Image, size: Size, mode: str) -> Image.Image:
    """Return an image in another size: ``resize`` of diffusers, Lanczos."""
    if mode == Resize.STRETCH:
        return image.resize(size, LANCZOS)
    return _filling(image, size) if mode == Resize.FILL else _cropped(image, size)


def _filling(image: Image.Image, size: Size) -> Image.Image:
    """``_resize_and_fill``: the image fits in, and its edges fill the rest."""
    wide, high = size
    wider = wide / high < image.width / image.height
    inner = (
        wide if wider else max(1, image.width * high // image.height),
        max(1, image.height * wide // image.width) if wider else high,
    )
    small = image.resize(inner, LANCZOS)
    left, top = wide // 2 - inner[0] // 2, high // 2 - inner[1] // 2
    found = Image.new(image.mode, size)
    found.paste(small, (left, top))
    if top > 0:
        found.paste(small.resize((wide, top), box=(0, 0, wide, 0)), (0, 0))
        last = small.resize((wide, top), box=(0, inner[1], wide, inner[1]))
        found.paste(last, (0, top + inner[1]))
    elif left > 0:
        found.paste(small.resize((left, high), box=(0, 0, 0, high)), (0, 0))
        last = small.resize((left, high), box=(inner[0], 0, inner[0], high))
        found.paste(last, (left + inner[0], 0))
    return found


def _cropped(image: Image.Image, size: Size) -> Image.Image:
    """``_resize_and_crop``: the image covers the size, and what is beyond is cut off."""
    wide, high = size
    narrower = wide / high > image.width / image.height
    outer = (
        wide if narrower else image.width * high // image.height,
        image.height * wide // image.width if narrower else high,
    )
    left, top = outer[0] // 2 - wide // 2, outer[1] // 2 - high // 2
    if outer[0] * outer[1] <= MOST_BETWEEN:
        return image.resize(outer, LANCZOS).crop((left, top, left + wide, top + high))
    # The same but for rounding, for an image that is thousands of times as long as wide.
    x, y = image.width / outer[0], image.height / outer[1]
    return image.resize(size, LANCZOS, box=(left * x, top * y, (left + wide) * x, (top + high) * y))
