"""Files of images for tests, made by Pillow or byte by byte."""

import io
import struct
import zlib
from typing import Any

from PIL import Image

SIZE = (48, 32)


def gradient(size: tuple[int, int] = SIZE) -> Image.Image:
    """Return an image with no two alike rows or columns."""
    wide, high = size
    red = Image.linear_gradient("L").resize(size)
    green = Image.linear_gradient("L").rotate(90).resize(size)
    blue = Image.radial_gradient("L").resize((wide, high))
    return Image.merge("RGB", (red, green, blue))


def saved(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """Return an image as the bytes of a file."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def chunk(kind: bytes, data: bytes = b"") -> bytes:
    """Return a chunk of a PNG."""
    head = struct.pack(">I", len(data)) + kind
    return head + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *more: bytes, depth: int = 8, colour: int = 2) -> bytes:
    """Return a PNG that says it has this size, without pixels; ``more`` are its other chunks."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(more) + chunk(b"IEND")


def exif(orientation: int, *, order: str = ">") -> bytes:
    """Return Exif data with an orientation."""
    mark = b"MM\0*" if order == ">" else b"II*\0"
    entry = struct.pack(f"{order}HHIHH", 0x0112, 3, 1, orientation, 0)
    return b"Exif\0\0" + mark + struct.pack(f"{order}IH", 8, 1) + entry + bytes(4)
