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

HIRES_TIMES: Final = 2
"""Sides of a second pass may be so many times as long as those of a first one."""

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

    @property
    def max_hires_size(self) -> int:
        """Pixels of the longest side of a second pass."""
        return HIRES_TIMES * self.max_size


MULTIPLE: Final = 64
"""Pixels; the native API takes multiples of it, as the models do."""


def fitted(width: int, height: int, low: int, high: int) -> tuple[int, int]:
    """Return the possible size nearest to one in pixels, of the same shape as far as possible.

    Sides may be from ``low`` to ``high``. Both shrink together until the longer one is possible,
    or grow together until the shorter one is. A shape that no possible size has loses what is
    beyond the limits.
    """
    longer, shorter = max(width, height), min(width, height)
    scale = high / longer if longer > high else max(1.0, min(low / shorter, high / longer))
    return _side(width * scale, low, high), _side(height * scale, low, high)


def _side(wanted: float, low: int, high: int) -> int:
    # Half of a step up, as people round; ``round`` would go to the even one.
    return min(max(int(wanted / MULTIPLE + 0.5) * MULTIPLE, low), high)
