"""What becomes of images that are sent."""

from collections.abc import Callable
from enum import StrEnum


class Outcome(StrEnum):
    """What became of one upload; a request's body that holds images is an upload, too."""

    RECEIVED = "received"
    """It arrived whole."""
    KEPT = "kept"
    """A job took it over."""
    BROKEN = "broken"
    """It ended before it was whole, or was no image that can be used."""
    REFUSED = "refused"
    """Too many bytes were on their way in."""


Count = Callable[[Outcome], None]


def nothing(_outcome: Outcome) -> None:
    """Count nothing."""
