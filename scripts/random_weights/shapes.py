"""What Stable Diffusion 1.5 and SDXL are made of, as their published configurations have it."""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch

from service.models.figures import FIGURES


@dataclass(frozen=True, kw_only=True)
class Part:
    """One neural network of a model."""

    library: str
    name: str
    """Of its class in that library."""
    config: Mapping[str, Any]

    @property
    def weights_file(self) -> str:
        """What the libraries call its file."""
        stem = "model" if self.library == "transformers" else "diffusion_pytorch_model"
        return f"{stem}.safetensors"

    def empty(self) -> Any:
        """Return the network without memory for its weights (``torch.device("meta")``)."""
        kind = getattr(importlib.import_module(self.library), self.name)
        with torch.device("meta"):
            if self.library == "transformers":
                return kind(kind.config_class(**self.config))
            return kind(**self.config)


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A kind of model: its networks, its noise schedule, its tokenizers."""

    pipeline: str
    parts: Mapping[str, Part]
    """By the folder that each has."""
    scheduler: str
    schedule: Mapping[str, Any]
    tokenizers: Mapping[str, str]
    """By folder, what texts are filled up with."""
    index: Mapping[str, Any]
    """What else ``model_index.json`` says."""


SD15, SDXL = FIGURES["sd", 768], FIGURES["sdxl", 2048]

SHAPES: Final[Mapping[str, Shape]] = {
    "sd15": Shape(
        pipeline="StableDiffusionPipeline",
        parts={
            "unet": Part(
                library="diffusers", name="UNet2DConditionModel", config=SD15.parts["unet"]
            ),
            "vae": Part(library="diffusers", name="AutoencoderKL", config=SD15.parts["vae"]),
            "text_encoder": Part(
                library="transformers", name="CLIPTextModel", config=SD15.parts["text_encoder"]
            ),
        },
        scheduler="PNDMScheduler",
        schedule=SD15.schedule,
        tokenizers=SD15.padding,
        index={
            "safety_checker": [None, None],
            "feature_extractor": [None, None],
            "requires_safety_checker": False,
        },
    ),
    "sdxl": Shape(
        pipeline="StableDiffusionXLPipeline",
        parts={
            "unet": Part(
                library="diffusers", name="UNet2DConditionModel", config=SDXL.parts["unet"]
            ),
            "vae": Part(library="diffusers", name="AutoencoderKL", config=SDXL.parts["vae"]),
            "text_encoder": Part(
                library="transformers", name="CLIPTextModel", config=SD15.parts["text_encoder"]
            ),
            "text_encoder_2": Part(
                library="transformers",
                name="CLIPTextModelWithProjection",
                config=SDXL.parts["text_encoder_2"],
            ),
        },
        scheduler="EulerDiscreteScheduler",
        schedule=SDXL.schedule,
        tokenizers=SDXL.padding,
        index=SDXL.settings,
    ),
}


def parameters(part: Part) -> int:
    """Return how many weights a network has."""
    return sum(weight.numel() for weight in part.empty().parameters())
