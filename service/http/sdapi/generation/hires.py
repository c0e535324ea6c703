"""The second pass of ``txt2img`` ("hires. fix"), from AUTOMATIC1111's fields to ours."""

import math
from collections.abc import Mapping
from typing import Any, Final

from service.core.inputs import Hires, HiresResize
from service.http.compat.reading import number

LATENT: Final = "Latent"
LANCZOS: Final = "Lanczos"
STRENGTH: Final = 0.75
SCALE: Final = 2.0
"""What AUTOMATIC1111 takes where a request says nothing (modules/processing.py)."""

MOST_STEPS: Final = 100_000
"""Larger numbers are no steps that somebody means."""

NAMES: Final = {
    "hires": "enable_hr",
    "hires.scale": "hr_scale",
    "hires.width": "hr_resize_x",
    "hires.height": "hr_resize_y",
    "hires.steps": "hr_second_pass_steps",
    "hires.strength": "denoising_strength",
    "hires.resize": "hr_upscaler",
}
"""What AUTOMATIC1111 calls the fields of a second pass."""

LATENT_MODES: Final = (LATENT,)
"""What ``/latent-upscale-modes`` lists."""

PIXELS: Final = (LANCZOS, "None")
"""Upscalers that resize the decoded image; "None" ends in AUTOMATIC1111's Lanczos, too."""


def second_pass(sent: Mapping[str, Any]) -> tuple[dict[str, Any] | None, list[str]]:
    """Return the field ``hires`` of a request, None for none, and what is not done as asked.

    A second pass of the size of the first is none, as in AUTOMATIC1111.
    """
    if not sent["enable_hr"]:
        return None, []
    sides = {
        name: int(sent[field])
        for name, field in (("width", "hr_resize_x"), ("height", "hr_resize_y"))
        if sent[field]
    }
    scale = SCALE if sent["hr_scale"] is None else sent["hr_scale"]
    if not sides and scale == 1:
        return None, []
    resize, told = _resize(sent["hr_upscaler"])
    strength = STRENGTH if sent["denoising_strength"] is None else sent["denoising_strength"]
    found: dict[str, Any] = {
        **(sides or {"scale": scale}),
        "steps": _steps(number(sent["hr_second_pass_steps"] or sent["steps"]), strength),
        "strength": strength,
        "resize": resize.value,
    }
    return found, told


def _steps(done: Any, strength: float) -> int:
    """Return the steps of which a strength leaves as many as AUTOMATIC1111 does.

    There the steps of a second pass are those that are done (``setup_img2img_steps`` of
    modules/sd_samplers_common.py). 0 stands for those of the first pass.
    """
    counts = isinstance(done, int | float) and 0 < done < MOST_STEPS and 0 < strength <= 1
    if not counts:
        return 0
    steps = math.ceil(int(done) / strength)
    return steps if int(steps * strength) >= int(done) else steps + 1


def _resize(upscaler: str) -> tuple[HiresResize, list[str]]:
    named = upscaler.strip()
    if named in ("", LATENT):
        return HiresResize.LATENT, []
    if named in PIXELS:
        return HiresResize.LANCZOS, []
    found = HiresResize.LATENT if named.startswith(LATENT) else HiresResize.LANCZOS
    used = LATENT if found is HiresResize.LATENT else LANCZOS
    return found, [f"hr_upscaler: there is no {named[:64]!r}; {used} is used."]


def upscaler(hires: Hires) -> str:
    """Return AUTOMATIC1111's name of what enlarges the first image."""
    return LATENT if hires.resize == HiresResize.LATENT else LANCZOS
