"""Images in base64, decoded piece by piece: whoever decodes one holds up everybody else."""

import binascii
import json
from collections.abc import Iterator
from typing import Final

PIECE: Final = 2**18
"""Characters that are decoded at a time, in about half a millisecond."""

PREFIX: Final = b"data:"
LONGEST_PREFIX: Final = 128
BLANKS: Final = b" \t\r\n"
ESCAPE: Final = b"\\"
LONGEST_ESCAPE: Final = 6
QUARTET: Final = 4

CURE: Final = "must be an image in base64; addresses are not fetched"


def decoded(text: bytes | memoryview) -> Iterator[bytes]:
    """Yield the bytes that a text in base64 stands for, as it stands between quotes in JSON.

    It may begin as a data URL does, and have line breaks in it, as encoders of mail write them.

    Raises:
        ValueError: it is something else.

    """
    rest, ended, start = b"", False, _beginning(text)
    for piece in _unescaped(text[start:]):
        line = rest + piece.translate(None, BLANKS)
        whole = len(line) - len(line) % QUARTET
        rest = line[whole:]
        if line and ended:
            raise ValueError(CURE)
        if whole:
            yield _bytes(line[:whole])
            ended = line[:whole].endswith(b"=")
    if rest:
        raise ValueError(CURE)


def _beginning(text: bytes | memoryview) -> int:
    head = bytes(text[:LONGEST_PREFIX])
    return head.find(b",") + 1 if head.startswith(PREFIX) else 0


def _unescaped(text: bytes | memoryview) -> Iterator[bytes]:
    start = 0
    while start < len(text):
        piece = bytes(text[start : start + PIECE])
        if ESCAPE in piece:  # Some encoders write / and + as escapes.
            if start + len(piece) < len(text):
                piece = _without_half(piece)
            yield _read(piece)
        else:
            yield piece
        start += len(piece)


def _without_half(piece: bytes) -> bytes:
    """Return a piece that does not end within an escape."""
    last = piece.rfind(ESCAPE, len(piece) - LONGEST_ESCAPE)
    if last <= 0:
        return piece
    return piece[: last + 2] if piece[last - 1 : last] == ESCAPE else piece[:last]


def _read(piece: bytes) -> bytes:
    try:
        return str(json.loads(b'"' + piece + b'"', strict=False)).encode("ascii")
    except ValueError as error:
        raise ValueError(CURE) from error


def _bytes(line: bytes) -> bytes:
    try:
        return binascii.a2b_base64(line, strict_mode=True)
    except binascii.Error as error:
        raise ValueError(CURE) from error
