"""One finished image as its pixels."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    Pixels = bytes | memoryview
else:
    Pixels = memoryview  # So that a message is read without a copy of its megabytes.


@dataclass(frozen=True, kw_only=True)
class RawImage:
    """One finished image: 8-bit RGB rows from the top, and the seed it came from."""

    width: int
    height: int
    pixels: Pixels
    seed: int
    unsafe: bool = False
    """The safety checker blacked it out."""
    packed: bool = False
    """Whether ``pixels`` are a PNG file of the rows, as an engine on another machine sends it."""
