"""Files of images without what they say next to their pixels, as Pillow gets to read them.

Pillow copies each value that Exif data name, and a small file can name one thousands of times;
it unpacks profiles and texts; and it looks at each of a million empty parts of a file.
"""

import re
import struct
from typing import Final

MOST_PARTS: Final = 65_536
"""Chunks of a PNG, or segments of a JPEG before its pixels: more than any encoder writes."""
MOST_SCANS: Final = 100
"""Of a progressive JPEG, each of which passes over all pixels; encoders write ten or so."""

PNG: Final = b"\x89PNG\r\n\x1a\n"
CHUNK: Final = struct.Struct(">I4s")
CHECKSUM_BYTES: Final = 4
PNG_PIXELS: Final = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")

JPEG: Final = b"\xff\xd8"
FILL: Final = 0xFF
BARE: Final = (0x01, *range(0xD0, 0xD9))
"""Markers of a JPEG without a segment (ITU-T T.81, B.1.1.3)."""
START_OF_SCAN, EXIF_SEGMENT = 0xDA, 0xE1
SAYING: Final = (*range(0xE1, 0xEE), 0xEF, 0xFE)
"""Segments of applications, and comments; JFIF's and Adobe's say how colours are meant."""

EXIF: Final = b"Exif\0\0"
ITEM: Final = b"infe"
LONGEST_ITEM: Final = 32
EXIF_ITEM: Final = re.compile(rb"(infe.{6}(?:..)?..)Exif", re.DOTALL)
"""Entry of the Exif data of an AVIF (ISO/IEC 14496-12, 8.11.6)."""

ORDERS: Final = {b"II*\0": "<", b"MM\0*": ">"}
ORIENTATION, SHORT = 0x0112, 3
EXIF_POINTER, USER_COMMENT = 0x8769, 0x9286
ENTRY_BYTES: Final = 12
VALUE_AT: Final = 8
INLINE_BYTES: Final = 4
"""A value of more stands elsewhere, and its offset in its place."""
LAST_ORIENTATION: Final = 8


def pixels_only(data: bytes) -> tuple[bytes, bytes]:
    """Return a file with little more than its pixels, and the Exif data that were dropped.

    Raises:
        ValueError: it has too many parts, or ends within one.

    """
    if data.startswith(PNG):
        return _png(data)
    if data.startswith(JPEG):
        return _jpeg(data)
    if data[4:8] == b"ftyp":
        # Pillow turns an AVIF as its own properties say, whatever its Exif data say.
        return _without_exif_item(data), b""
    return data, b""


def orientation(exif: bytes) -> int:
    """Return the orientation that Exif data name, 1 to 8; 1 where they name none.

    Exif 2.32, 4.6.2 and 4.6.4.
    """
    tiff = exif.removeprefix(EXIF)
    order = ORDERS.get(tiff[:4], "")
    try:
        (start,) = struct.unpack_from(f"{order}I", tiff, 4)
        kind, _, place = _entry(tiff, order, start, ORIENTATION)
        (value,) = struct.unpack_from(f"{order}H", tiff, place)
    except (struct.error, KeyError):
        return 1
    return value if order and kind == SHORT and 1 <= value <= LAST_ORIENTATION else 1


def user_comment(exif: bytes) -> bytes:
    """Return the user comment of Exif data as it stands there; empty where there is none.

    Nothing else is looked at, and nothing is copied but the comment. Exif 2.32, 4.6.3 and 4.6.5.
    """
    tiff = exif.removeprefix(EXIF)
    order = ORDERS.get(tiff[:4], "")
    try:
        (start,) = struct.unpack_from(f"{order}I", tiff, 4)
        _, _, place = _entry(tiff, order, start, EXIF_POINTER)
        (start,) = struct.unpack_from(f"{order}I", tiff, place)
        _, count, place = _entry(tiff, order, start, USER_COMMENT)
        if count > INLINE_BYTES:
            (place,) = struct.unpack_from(f"{order}I", tiff, place)
    except (struct.error, KeyError):
        return b""
    return tiff[place : place + count] if order else b""


def _entry(tiff: bytes, order: str, start: int, tag: int) -> tuple[int, int, int]:
    """Return type and count of a value in a directory, and the place of it or its offset.

    Raises:
        KeyError: the directory has no such value.
        struct.error: it ends within an entry.

    """
    (entries,) = struct.unpack_from(f"{order}H", tiff, start)
    for entry in range(start + 2, start + 2 + entries * ENTRY_BYTES, ENTRY_BYTES):
        found, kind, count = struct.unpack_from(f"{order}HHI", tiff, entry)
        if found == tag:
            return kind, count, entry + VALUE_AT
    raise KeyError(tag)


def _without_exif_item(data: bytes) -> bytes:
    """Return an AVIF whose Exif data are something that nobody knows; searched in a part of it."""
    first = data.find(ITEM)
    if first < 0:
        return data
    last = data.rfind(ITEM) + LONGEST_ITEM
    return b"".join((data[:first], EXIF_ITEM.sub(rb"\1none", data[first:last]), data[last:]))


def _png(data: bytes) -> tuple[bytes, bytes]:
    # A copy of megabytes holds up the other threads: there is one, at the end.
    view, kept, exif, start = memoryview(data), [memoryview(PNG)], b"", len(PNG)
    for _ in range(MOST_PARTS):
        if start + CHUNK.size > len(data):
            return b"".join(kept), exif
        length, kind = CHUNK.unpack_from(data, start)
        end = start + CHUNK.size + length + CHECKSUM_BYTES
        if kind in PNG_PIXELS:
            kept.append(view[start:end])
        elif kind == b"eXIf":
            exif = data[start + CHUNK.size : end - CHECKSUM_BYTES]
        start = end
    raise ValueError(f"must have at most {MOST_PARTS} chunks; save it again")


def _jpeg(data: bytes) -> tuple[bytes, bytes]:
    kept, exif, start = [JPEG], b"", len(JPEG)
    for _ in range(MOST_PARTS):
        start = data.find(b"\xff", start)
        if start < 0 or start + 4 > len(data):
            raise ValueError("ends before its pixels; save it again")
        marker = data[start + 1]
        if marker == START_OF_SCAN:
            break
        if marker in (0, FILL, *BARE):
            start += 1 if marker == FILL else 2
            continue
        end = start + 2 + int.from_bytes(data[start + 2 : start + 4])
        if marker == EXIF_SEGMENT and not exif and data.startswith(EXIF, start + 4):
            exif = data[start + 4 : end]
        elif marker not in SAYING:
            kept.append(data[start:end])
        start = end
    else:
        raise ValueError(f"must have at most {MOST_PARTS} segments; save it again")
    if data.count(b"\xff\xda", start) > MOST_SCANS:
        raise ValueError(f"must have at most {MOST_SCANS} scans; save it again")
    return b"".join((*kept, memoryview(data)[start:])), exif
