"""Latents to 8-bit pixels, converted exactly as diffusers does it."""

from typing import Any

import torch

from service.core.image import RawImage
from service.core.stage import Stage
from service.diffusion.load import Model
from service.errors import GenerationFailed


def decode(model: Model, latents: torch.Tensor, seed: int) -> RawImage:
    """Decode one image's latents ``[1, channels, height, width]``.

    Raises:
        GenerationFailed: latents or image hold values that are no numbers; without
            this check they would become a black image.

    """
    demand_finite(model, latents, "latents")
    image = model.family.decode(latents)
    demand_finite(model, image, "decoded image")
    pixels = levels(image)
    height, width, _ = pixels.shape
    return RawImage(width=width, height=height, pixels=pixels.tobytes(), seed=seed)


def levels(image: torch.Tensor) -> Any:
    """Return an image ``[1, 3, height, width]`` as an array of bytes ``[height, width, 3]``."""
    # VaeImageProcessor.denormalize and numpy_to_pil; done on the device, so that one byte
    # per value crosses to the host and not four. Both round halves to even.
    found = (image[0] * 0.5 + 0.5).clamp(0, 1).permute(1, 2, 0).float().mul(255).round()
    return found.to(torch.uint8).cpu().numpy()


def demand_finite(model: Model, values: torch.Tensor, name: str) -> None:
    """Refuse values that are no numbers.

    Raises:
        GenerationFailed: with the cause, or what helps.

    """
    if bool(torch.isfinite(values).all()):
        return
    if broken := broken_weights(model):
        raise GenerationFailed(
            f"The {name} hold NaN or infinite values, since {broken} does. Use another copy of the "
            "model."
        )
    cure = {
        "float16": "The number format is too narrow for this model: set DTYPE=float32, or bfloat16",
        "bfloat16": "The number format may be too coarse for this model: set DTYPE=float32",
    }.get(model.info.dtype, "No number format helps: use another model")
    raise GenerationFailed(f"The {name} hold NaN or infinite values. {cure}.")


def broken_weights(model: Model) -> str:
    """Return the first weight that holds NaN or infinite values; empty if none does."""
    checkers = model.family.parts[Stage.SAFETY]
    for part, network in model.family.networks.items():
        if part in checkers:
            continue
        for name, weight in network.named_parameters():
            if not bool(torch.isfinite(weight).all()):
                return f"{name} of the {part}"
    return ""
