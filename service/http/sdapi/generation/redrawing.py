"""What ``img2img`` asks for, from AUTOMATIC1111's fields to ours."""

import math
from collections.abc import Mapping
from typing import Any, Final

from service.core.inputs import MaskFill, Resize

STRENGTH: Final = 0.75
"""What AUTOMATIC1111 takes where a request says nothing (modules/processing.py)."""
BLUR: Final = 4

NAMES: Final = {
    "image": "init_images",
    "strength": "denoising_strength",
    "resize": "resize_mode",
    "mask_padding": "inpaint_full_res_padding",
    "mask_invert": "inpainting_mask_invert",
    "mask_fill": "inpainting_fill",
}
"""What AUTOMATIC1111 calls the fields of images as input, where that differs."""

MODES: Final = (Resize.STRETCH, Resize.CROP, Resize.FILL)
FILLS: Final = (MaskFill.BLUR, MaskFill.ORIGINAL, MaskFill.NOISE)
"""What its numbers mean, from 0; each has one more number, which is not available here."""


def redrawn(sent: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return values by native field names, without the images, and what is not done as asked."""
    told = []
    if len(sent["init_images"]) > 1:
        told.append("init_images: only the first image is used.")
    strength = sent["denoising_strength"]
    values: dict[str, Any] = {"strength": STRENGTH if strength is None else strength}
    values["resize"] = _chosen(sent["resize_mode"], MODES, Resize.STRETCH)
    if values["resize"] is Resize.STRETCH and sent["resize_mode"]:
        told.append("resize_mode: latents are not resized here; the image is stretched.")
    if not sent["mask"]:
        return values, told
    values["mask_fill"] = _chosen(sent["inpainting_fill"], FILLS, MaskFill.NOISE)
    if sent["inpainting_fill"] == len(FILLS):
        told.append("inpainting_fill: latent nothing is not available; latent noise is used.")
    blurs = (sent["mask_blur"], sent["mask_blur_x"], BLUR)
    values["mask_blur"] = next(each for each in blurs if each is not None)
    if sent["inpaint_full_res"]:
        values["mask_padding"] = sent["inpaint_full_res_padding"] or 0
    values["mask_invert"] = bool(sent["inpainting_mask_invert"])
    return values, told


def _chosen(number: float | None, choices: tuple[Any, ...], other: Any) -> Any:
    """Return the choice of a number; unknown ones are left to be refused by their field."""
    place = 0 if number is None else number
    if not math.isfinite(place) or place != int(place) or not 0 <= place <= len(choices):
        return str(number)
    return choices[int(place)] if place < len(choices) else other
