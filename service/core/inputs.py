"""Images as input: references to them, what is made of them, and their pixels for an engine."""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from service.core.fields import Setting, asked

HIRES_MULTIPLE: Final = 8
"""Pixels; a latent stands for 8 by 8 of them."""


class Resize(StrEnum):
    """How an image of another shape gets the size that is drawn, as diffusers does it."""

    STRETCH = "stretch"
    """Both sides change by themselves."""
    CROP = "crop"
    """It covers the size, and what is beyond is cut off evenly."""
    FILL = "fill"
    """It fits into the size, and its edges fill the rest."""


class MaskFill(StrEnum):
    """What the repainted part of an image begins with."""

    ORIGINAL = "original"
    NOISE = "noise"
    BLUR = "blur"


class HiresResize(StrEnum):
    """What is enlarged between the two passes, and how."""

    LATENT = "latent"
    """The latents, bilinear."""
    LANCZOS = "lanczos"
    """The decoded image."""


@dataclass(frozen=True, kw_only=True)
class InputImage:
    """An image that a request came with; its bytes are kept with the job."""

    digest: str
    """SHA-256 of the bytes as they were sent, in hexadecimal."""
    width: int
    """In pixels, as its orientation says."""
    height: int


@dataclass(frozen=True, kw_only=True)
class EngineInputs:
    """The input images of a request as an engine takes them, in the size that is drawn."""

    image: bytes = field(repr=False)
    """8-bit RGB rows from the top."""
    mask: bytes = field(default=b"", repr=False)
    """8-bit grey rows from the top, white where the image is repainted; empty for none."""


InputSource = Callable[[], EngineInputs]
"""Reads and prepares the input images of a job, which blocks; a ServiceError says why it cannot."""


@dataclass(frozen=True, kw_only=True)
class Pad:
    """Pixels to add to each side of an image; they are repainted."""

    left: int = asked("Pixels to add on the left.", default=0, low=0, high=1024, example=64)
    top: int = asked("Pixels to add at the top.", default=0, low=0, high=1024)
    right: int = asked("Pixels to add on the right.", default=0, low=0, high=1024)
    bottom: int = asked("Pixels to add at the bottom.", default=0, low=0, high=1024)


SIDE: Final = {
    "default": 0,
    "low": 0,
    "high": Setting("max_hires_size"),
    "multiple": HIRES_MULTIPLE,
    "example": 1024,
}


LEAST_OF_LATENTS: Final = 0.5
"""Strength that draws enlarged latents anew; with less their blur is left."""


@dataclass(frozen=True, kw_only=True)
class Hires:
    """A second pass in a larger size, which begins with the image of the first."""

    scale: float = asked(
        "Width and height of the second pass, in those of the first. 0 for a size in pixels.",
        default=0.0,
        low=0,
        high=4,
        example=2,
    )
    width: int = asked("Width of the second pass in pixels, with `height`. 0 for `scale`.", **SIDE)
    height: int = asked("Height of the second pass in pixels, with `width`. 0 for `scale`.", **SIDE)
    steps: int = asked(
        "Denoising steps of the second pass, before `strength` takes its share. 0 for those of the "
        "first.",
        default=0,
        low=0,
        high=Setting("max_steps"),
        example=20,
    )
    strength: float = asked(
        "How much of the first image the second pass redraws.", default=0.7, low=0, high=1
    )
    resize: str = asked(
        "What is enlarged between the passes: the latents, or the decoded image.",
        default=HiresResize.LATENT,
        choices=tuple(HiresResize),
    )

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Return the width and height in pixels of the second pass after a first of this size."""
        if not self.scale:
            return self.width, self.height
        scaled = (int(side * self.scale) for side in (width, height))
        wide, high = (side // HIRES_MULTIPLE * HIRES_MULTIPLE for side in scaled)
        return wide, high
