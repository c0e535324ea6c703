"""Noise levels that were published for the models of a family."""

from collections.abc import Mapping
from typing import Final

from service.models.layout import Layout

ALIGNED: Final[Mapping[str, tuple[float, ...]]] = {
    "sd": (14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029),
    "sdxl": (14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029),
}
"""Align Your Steps, arXiv:2404.14507: the levels of ten steps, and the end of the last."""


def aligned(model: Layout) -> tuple[float, ...]:
    """Return the levels of ``align_your_steps`` for a model; empty where none were published."""
    numbers = model.schedule.numbers
    usual = numbers.get("beta_start"), numbers.get("beta_end"), numbers.get("beta_schedule")
    if usual != (0.00085, 0.012, "scaled_linear") or numbers.get("rescale_betas_zero_snr"):
        return ()
    # Stable Diffusion 2.x, the base model, too, differs from 1.x by this.
    second = model.family == "sd" and model.configs["unet"].get("use_linear_projection")
    if model.schedule.prediction_type != "epsilon" or second:
        return ()
    return ALIGNED.get(model.family, ())
