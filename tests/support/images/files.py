"""Files of images, as clients send them."""

import base64
import io
from typing import Final

from PIL import Image

SIZE: Final = (256, 192)
"""Width and height in pixels."""


def png(size: tuple[int, int] = SIZE, *, hole: bool = False) -> bytes:
    """Return a PNG of two colours; with a ``hole`` its middle is transparent."""
    wide, high = size
    image = Image.new("RGBA", size, (90, 120, 200, 255))
    image.paste((220, 180, 90, 255), (0, high // 2, wide, high))
    if hole:
        image.paste((0, 0, 0, 0), _middle(size))
    return _written(image if hole else image.convert("RGB"))


def mask(size: tuple[int, int] = SIZE) -> bytes:
    """Return a mask that is white in the middle and black around it."""
    image = Image.new("L", size)
    image.paste(255, _middle(size))
    return _written(image)


def base64_of(data: bytes) -> str:
    """Return bytes in base64."""
    return base64.b64encode(data).decode()


def opened(text: str) -> Image.Image:
    """Return an image in base64, decoded."""
    image = Image.open(io.BytesIO(base64.b64decode(text, validate=True)))
    image.load()
    return image


def _middle(size: tuple[int, int]) -> tuple[int, int, int, int]:
    wide, high = size
    return wide // 4, high // 4, wide * 3 // 4, high * 3 // 4


def _written(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
