"""Files of images that strangers send, as pixels: one at a time, so that memory stays bounded."""

import io
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, TypeVar

from PIL import Image

from service.images.containers import orientation, pixels_only

T = TypeVar("T")

FORMATS: Final = ("PNG", "JPEG", "WEBP", "AVIF")
UNKNOWN: Final = "must be a PNG, JPEG, WebP or AVIF image that is not damaged; save it as one"

TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What each orientation asks for (Exif 2.32, 4.6.4)."""
SIDEWAYS: Final = (5, 6, 7, 8)

OPAQUE: Final = (255, 255)
WORDS: Final = 256
"""Values of a 16-bit image for each of an 8-bit one."""

ONE_AT_A_TIME: Final = threading.Lock()
"""Held while an image is decoded, which takes up to 17 bytes a pixel (WebP)."""

# Pillow's own limit writes a warning; this module knows the size before anything is decoded.
Image.MAX_IMAGE_PIXELS = None


@dataclass(frozen=True, kw_only=True)
class Inspected:
    """What an image that decodes is like."""

    width: int
    """In pixels, as its orientation says."""
    height: int
    transparent: bool
    """Whether any of it is."""


def inspected(data: bytes, most_pixels: int) -> Inspected:
    """Decode an image, and return what it is like.

    Raises:
        ValueError: it is no such image, damaged, or has too many pixels; the last is known
            before anything is decoded.

    """
    with ONE_AT_A_TIME, _opened(data, most_pixels) as (image, turned):
        image.load()
        wide, high = reversed(image.size) if turned in SIDEWAYS else image.size
        opacity = _opacity(image) if _may_be_transparent(image) else None
        return Inspected(width=wide, height=high, transparent=opacity is not None)


def colours(data: bytes, most_pixels: int | None = None) -> Image.Image:
    """Return the first frame of an image in RGB, turned as it says, on white.

    Raises:
        ValueError: as ``inspected`` says.

    """
    return _decoded(data, most_pixels, _on_white)


def mask(data: bytes, most_pixels: int | None = None) -> Image.Image:
    """Return a mask in 8-bit grey: its opacity if any of it is transparent, else its brightness.

    Raises:
        ValueError: as ``inspected`` says.

    """
    return _decoded(data, most_pixels, _grey)


def _decoded(
    data: bytes, most_pixels: int | None, finish: Callable[[Image.Image], Image.Image]
) -> Image.Image:
    with ONE_AT_A_TIME:
        with _opened(data, most_pixels) as (image, turned):
            mode = "RGBA" if _may_be_transparent(image) else "RGB"
            found = _bytes(image).convert(mode)
        del image  # Some decoders hold three times the pixels.
        found = finish(found)
        turn = TURNS.get(turned)
        return found if turn is None else found.transpose(turn)


@contextmanager
def _opened(data: bytes, most_pixels: int | None) -> Iterator[tuple[Image.Image, int]]:
    """Open an image, with its orientation."""
    plain, exif = pixels_only(data)
    try:
        with Image.open(io.BytesIO(plain), formats=FORMATS) as image:
            del plain
            _check_size(image, most_pixels)
            yield image, orientation(exif or image.info.get("exif", b""))
    except _TooLarge:
        raise
    except Exception as error:  # Damaged files make Pillow raise errors of any class.
        raise ValueError(UNKNOWN) from error


class _TooLarge(ValueError):
    pass


def _check_size(image: Image.Image, most_pixels: int | None) -> None:
    wide, high = image.size
    if most_pixels is not None and wide * high > most_pixels:
        raise _TooLarge(
            f"must have at most {most_pixels} pixels (MAX_IMAGE_PIXELS), and has {wide}x{high}; "
            "make it smaller"
        )


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    drawn = Image.new("RGB", image.size, "white")
    drawn.paste(image, mask=image.getchannel("A"))
    return drawn


def _grey(image: Image.Image) -> Image.Image:
    opacity = _opacity(image) if image.mode == "RGBA" else None
    return opacity or image.convert("RGB").convert("L")


def _may_be_transparent(image: Image.Image) -> bool:
    return image.has_transparency_data and not image.mode.startswith("I")


def _opacity(image: Image.Image) -> Image.Image | None:
    """Return the opacity of each pixel; None where all are opaque."""
    opacity = (image if image.mode == "RGBA" else image.convert("RGBA")).getchannel("A")
    return None if opacity.getextrema() == OPAQUE else opacity


def _bytes(image: Image.Image) -> Image.Image:
    """Return a 16-bit image as an 8-bit one; Pillow would cut what is above 255."""
    if not image.mode.startswith("I"):
        return image
    return image.point(lambda value: value * (1 / WORDS)).convert("L")
