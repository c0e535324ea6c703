"""Latents to 8-bit pixels, converted exactly as diffusers does it."""

from dataclasses import replace

import numpy as np
import torch
from PIL import Image

from service.diffusion.generation import Picture
from service.diffusion.load import Model
from service.errors import GenerationFailed


def decode(model: Model, latents: torch.Tensor, seed: int) -> Picture:
    """Decode one picture's latents ``[1, channels, height, width]``.

    Raises:
        GenerationFailed: latents or picture hold values that are no numbers; without
            this check they would become a black picture.

    """
    _demand_finite(model, latents, "latents")
    vae = model.pipeline.vae
    image = vae.decode(_unscaled(model, latents).to(vae.dtype), return_dict=False)[0]
    _demand_finite(model, image, "decoded image")
    # VaeImageProcessor.denormalize and numpy_to_pil; done on the device, so that one byte
    # per value crosses to the host and not four. Both round halves to even.
    levels = (image[0] * 0.5 + 0.5).clamp(0, 1).permute(1, 2, 0).float().mul(255).round()
    pixels = levels.to(torch.uint8).cpu().numpy()
    height, width, _ = pixels.shape
    return Picture(width=width, height=height, pixels=pixels.tobytes(), seed=seed)


def has_safety_checker(model: Model) -> bool:
    """Whether the model comes with a checker and the settings ask for it."""
    return getattr(model.pipeline, "safety_checker", None) is not None


def checked(model: Model, picture: Picture) -> Picture:
    """Return the picture, or a black one where the model's safety checker flags it."""
    pixels = np.frombuffer(picture.pixels, np.uint8).reshape(picture.height, picture.width, 3)
    checker = model.pipeline.safety_checker
    features = model.pipeline.feature_extractor(Image.fromarray(pixels), return_tensors="pt")
    values = features.pixel_values.to(model.device, checker.dtype)
    _, flagged = checker(clip_input=values, images=[pixels / 255])
    if not bool(flagged[0]):
        return picture
    return replace(picture, pixels=bytes(len(picture.pixels)), unsafe=True)


def _demand_finite(model: Model, values: torch.Tensor, name: str) -> None:
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
    pipeline = model.pipeline
    for part in ("text_encoder", "text_encoder_2", "unet", "vae"):
        network = getattr(pipeline, part, None)
        for name, weight in network.named_parameters() if network is not None else ():
            if not bool(torch.isfinite(weight).all()):
                return f"{name} of the {part}"
    return ""


def _unscaled(model: Model, latents: torch.Tensor) -> torch.Tensor:
    """Undo the scaling that the VAE's encoder side applies, as the pipelines do."""
    config = model.pipeline.vae.config
    mean, std = config.get("latents_mean"), config.get("latents_std")
    if model.info.family == "sdxl" and mean is not None and std is not None:
        shape = (1, -1, 1, 1)
        means = torch.tensor(mean).view(shape).to(latents.device, latents.dtype)
        stds = torch.tensor(std).view(shape).to(latents.device, latents.dtype)
        denormalised: torch.Tensor = latents * stds / config.scaling_factor + means
        return denormalised
    unscaled: torch.Tensor = latents / config.scaling_factor
    return unscaled
