"""One image as the bytes of a file."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """One image as the bytes of a file."""

    data: bytes
    media_type: str
