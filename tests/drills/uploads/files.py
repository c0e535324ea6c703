"""Files that strangers send as images: damaged, enormous, odd, or none at all."""

import io
import random
import struct
import zlib
from collections.abc import Iterator
from typing import Any, Final

from PIL import Image

SIZE: Final = (300, 260)
FORMATS: Final = ("PNG", "JPEG", "WEBP", "AVIF")
SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
SHARES: Final = 15
"""Lengths at which each format is cut off."""
FLIPS: Final = 36
"""Files of each format with other bytes in them."""

Named = tuple[str, bytes]


def saved(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """Return an image as the bytes of a file."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def picture() -> Image.Image:
    """Return an image that every format has something to do with."""
    grey = Image.radial_gradient("L").resize(SIZE)
    return Image.merge("RGB", (grey, grey.transpose(Image.Transpose.ROTATE_180), grey))


def chunk(kind: bytes, data: bytes = b"") -> bytes:
    """Return a chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *more: bytes, depth: int = 8, colour: int = 2) -> bytes:
    """Return a PNG of this size with these chunks."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return SIGNATURE + chunk(b"IHDR", header) + b"".join(more) + chunk(b"IEND")


def zeros(size: int) -> bytes:
    """Return so many zeros, packed, as a chunk of pixels."""
    return chunk(b"IDAT", zlib.compress(bytes(size), 9))


def exif_bomb(entries: int, size: int) -> bytes:
    """Return Exif data whose entries all name the same bytes, which come last."""
    head = b"MM\0*" + struct.pack(">IH", 8, entries)
    start = len(head) + entries * 12 + 4
    rows = (struct.pack(">HHII", 0x8000 + n, 7, size, start) for n in range(entries))
    return b"Exif\0\0" + head + b"".join(rows) + bytes(4) + bytes(size)


def hostile() -> Iterator[Named]:
    """Yield the files with their names; the same ones each time."""
    yield from _cut()
    yield from _flipped()
    yield from _mixed_up()
    yield from _enormous()
    yield from _stuffed()
    yield from _odd()
    yield from _no_images()


def _each() -> Iterator[Named]:
    for kind in FORMATS:
        yield kind, saved(picture(), kind)


def _cut() -> Iterator[Named]:
    for kind, data in _each():
        for part in range(SHARES):
            yield f"cut {kind} {part}", data[: len(data) * part // SHARES]


def _flipped() -> Iterator[Named]:
    chance = random.Random(16)
    for kind, data in _each():
        for number in range(FLIPS):
            changed = bytearray(data)
            most = 64 if number % 2 else len(data)
            for _ in range(1 + number):
                changed[chance.randrange(most)] = chance.randrange(256)
            yield f"flipped {kind} {number}", bytes(changed)


def _mixed_up() -> Iterator[Named]:
    files = dict(_each())
    for kind, data in files.items():
        for other, foreign in files.items():
            if kind != other:
                yield f"{kind} with the beginning of {other}", foreign[:16] + data[16:]
                yield f"{kind} behind {other}", foreign[: len(foreign) // 2] + data


def _enormous() -> Iterator[Named]:
    for wide, high in ((65_535, 65_535), (2**31 - 1, 2**31 - 1), (20_000, 20_000), (0, 9), (9, 0)):
        yield f"PNG of {wide}x{high}", png(wide, high, zeros(9))
    yield "PNG of 3500x3500 zeros", png(3500, 3500, zeros(3500 * (3500 * 3 + 1)))
    yield "PNG of 16 bits", png(2500, 2500, zeros(2500 * (2500 * 8 + 1)), depth=16, colour=6)
    yield "PNG with too many pixels in it", png(9, 9, zeros(50_000_000))
    for size in ((1, 100_000), (100_000, 1)):
        yield f"PNG of {size}", saved(Image.new("RGB", size))
    for kind, size in (("JPEG", (1, 65_000)), ("WEBP", (16_000, 1))):
        yield f"{kind} of {size}", saved(Image.new("RGB", size), kind)
    jpeg = saved(picture(), "JPEG")
    at = jpeg.index(b"\xff\xc0") + 5
    yield "JPEG of 65500x65500", jpeg[:at] + struct.pack(">HH", 65_500, 65_500) + jpeg[at + 4 :]
    yield "JPEG of 3500x3500", saved(Image.new("RGB", (3500, 3500)), "JPEG", progressive=True)
    yield "CMYK of 3500x3500", saved(Image.new("CMYK", (3500, 3500)), "JPEG", progressive=True)
    webp = saved(picture(), "WEBP", exif=exif_bomb(1, 9))
    at = webp.index(b"VP8X") + 12
    yield "WebP of 16384x16384", webp[:at] + b"\xff\x3f\0" * 2 + webp[at + 6 :]
    yield "WebP of 3500x3500", saved(Image.new("RGBA", (3500, 3500)), "WEBP", lossless=True)
    avif = saved(picture(), "AVIF")
    at = avif.index(b"ispe") + 8
    yield "AVIF of 30000x30000", avif[:at] + struct.pack(">II", 30_000, 30_000) + avif[at + 8 :]


def _stuffed() -> Iterator[Named]:
    pixels = zeros(9 * (9 * 3 + 1))
    for entries, size in ((1, 60_000), (2500, 30_000), (30_000, 1000), (5000, 0)):
        bomb = exif_bomb(entries, size)
        yield f"PNG with Exif {entries}x{size}", png(9, 9, pixels, chunk(b"eXIf", bomb[6:]))
        yield f"WebP with Exif {entries}x{size}", saved(picture(), "WEBP", exif=bomb)
        # Pillow itself reads what it writes into an AVIF.
        tame = bomb[:14] + bytes(len(bomb) - 14)
        avif = saved(picture(), "AVIF", exif=tame).replace(tame[6:], bomb[6:])
        yield f"AVIF with Exif {entries}x{size}", avif
        if len(bomb) < 65_000:
            yield f"JPEG with Exif {entries}x{size}", saved(picture(), "JPEG", exif=bomb)
    jpeg, bomb = saved(picture(), "JPEG"), exif_bomb(2500, 30_000)
    segment = b"\xff\xe1" + struct.pack(">H", len(bomb) + 2) + bomb
    yield "JPEG with much Exif", jpeg[:2] + segment * 100 + jpeg[20:]
    packed = zlib.compress(bytes(60_000_000), 9)
    for kind in (b"zTXt", b"iCCP"):
        yield f"{kind!r} of 60 MB", png(9, 9, chunk(kind, b"a\0\0" + packed), pixels)
    yield "iTXt of 60 MB", png(9, 9, chunk(b"iTXt", b"a\0\1\0\0\0" + packed), pixels)
    yield "a hundred texts", png(9, 9, chunk(b"zTXt", b"a\0\0" + packed[:9000]) * 100, pixels)
    yield "a million chunks", png(9, 9, chunk(b"teSt") * 1_000_000, pixels)
    progressive = saved(picture(), "JPEG", progressive=True)
    at = progressive.index(b"\xff\xda")
    scans = progressive[at:-2]
    yield "a thousand scans", progressive[:at] + scans * 200 + progressive[-2:]
    yield "a thousand pixels of comments", jpeg[:2] + b"\xff\xfe\0\2" * 100_000 + jpeg[2:]


def _odd() -> Iterator[Named]:
    image = picture()
    for mode in ("1", "L", "P", "LA", "RGBA", "I;16"):
        yield f"PNG {mode}", saved(image.convert("L" if mode == "I;16" else mode).convert(mode))
    for mode in ("L", "CMYK"):
        yield f"JPEG {mode}", saved(image.convert(mode), "JPEG")
    for kind in ("PNG", "WEBP", "AVIF"):
        more = [Image.new("RGB", SIZE, colour) for colour in ("red", "blue")] * 10
        yield f"animated {kind}", saved(image, kind, save_all=True, append_images=more)
    for orientation in range(10):
        exif = Image.Exif()
        exif[0x0112] = orientation
        yield f"turned {orientation}", saved(image, "JPEG", exif=exif)
    yield "interlaced", saved(image, "PNG", interlace=1)
    yield "two JPEGs", saved(image, "MPO", save_all=True, append_images=[image])


def _no_images() -> Iterator[Named]:
    image = picture()
    for kind in ("GIF", "BMP", "TIFF", "ICO", "PPM", "TGA", "PCX", "JPEG2000", "PDF", "EPS", "DDS"):
        yield kind, saved(image, kind)
    svg = b"<svg xmlns='http://www.w3.org/2000/svg'><image href='http://127.0.0.1/'/></svg>"
    texts = {
        "nothing": b"",
        "a byte": b"\0",
        "a megabyte": bytes(2**20),
        "text": b"hello",
        "html": b"<html><img src='file:///etc/passwd'></html>",
        "svg": svg,
        "pickle": b"\x80\x04\x95\x10\0\0\0\0\0\0\0\x8c\x05posix\x8c\x06system\x93.",
        "video": b"\0\0\0\x18ftypmp42" + bytes(500),
        "heic": b"\0\0\0\x18ftypheic" + bytes(500),
        "zip": b"PK\3\4" + bytes(500),
        "script": b"#!/bin/sh\nrm -rf /\n",
        "riff": b"RIFF\xff\xff\xff\xffWEBP",
        "elf": b"\x7fELF" + bytes(500),
    }
    yield from texts.items()
