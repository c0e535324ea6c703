"""Limits and defaults of requests: those that a kind of model has, and those that hold."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Widths and heights in pixels that a kind of model draws well."""

    smallest: int = 256
    largest: int = 768
    usual: int = 512
    """Width and height that it was trained with."""


SD: Final = Sizes()
"""Stable Diffusion 1.x, and the base models of 2.x."""

SD_2_V: Final = Sizes(usual=768)
"""Stable Diffusion 2.x that predicts the velocity."""

SDXL: Final = Sizes(smallest=512, largest=1536, usual=1024)
LARGEST: Final = max(each.largest for each in (SD, SD_2_V, SDXL))

CLIP_LAYERS: Final = 12
"""Layers of the text encoder of Stable Diffusion 1.x, and of the smaller one of XL."""
MOST_CLIP_LAYERS: Final = 100
"""More than any text encoder has."""


@dataclass(frozen=True, kw_only=True)
class RequestLimits:
    """What holds for requests to one model: the settings, else what suits the model.

    Fields of a request name these (``core.fields.Setting``).
    """

    max_prompt_chars: int
    default_steps: int
    max_steps: int
    min_size: int
    default_size: int
    max_size: int
    max_images: int
    default_sampler: str
    default_guidance_scale: float
    default_guidance_rescale: float = 0.0
    default_eta: float = 0.0
    default_schedule: str = "automatic"
    max_clip_skip: int = CLIP_LAYERS
