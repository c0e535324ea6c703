"""What Stable Diffusion 1.5 and SDXL are made of, as their published configurations have it."""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch

SCHEDULE: Final[Mapping[str, Any]] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "epsilon",
    "steps_offset": 1,
}


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


CLIP_L: Final[Mapping[str, Any]] = {
    "vocab_size": 49408,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "projection_dim": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": 77,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
    # As published. With the 2 transformers takes the largest id for the end, which it is.
    "bos_token_id": 0,
    "eos_token_id": 2,
    "pad_token_id": 1,
}

CLIP_G: Final[Mapping[str, Any]] = {
    **CLIP_L,
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "projection_dim": 1280,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "hidden_act": "gelu",
}

UNET: Final[Mapping[str, Any]] = {
    "sample_size": 64,
    "in_channels": 4,
    "out_channels": 4,
    "act_fn": "silu",
    "attention_head_dim": 8,
    "block_out_channels": (320, 640, 1280, 1280),
    "center_input_sample": False,
    "cross_attention_dim": 768,
    "down_block_types": (*("CrossAttnDownBlock2D",) * 3, "DownBlock2D"),
    "up_block_types": ("UpBlock2D", *("CrossAttnUpBlock2D",) * 3),
    "downsample_padding": 1,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-5,
    "norm_num_groups": 32,
}

UNET_XL: Final[Mapping[str, Any]] = {
    **UNET,
    "sample_size": 128,
    "attention_head_dim": (5, 10, 20),
    "block_out_channels": (320, 640, 1280),
    "cross_attention_dim": 2048,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}

VAE: Final[Mapping[str, Any]] = {
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 4,
    "act_fn": "silu",
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "norm_num_groups": 32,
    "sample_size": 512,
    "scaling_factor": 0.18215,
}

VAE_XL: Final[Mapping[str, Any]] = {
    **VAE,
    "sample_size": 1024,
    "scaling_factor": 0.13025,
    "force_upcast": True,
}

END: Final = "<|endoftext|>"

SHAPES: Final[Mapping[str, Shape]] = {
    "sd15": Shape(
        pipeline="StableDiffusionPipeline",
        parts={
            "unet": Part(library="diffusers", name="UNet2DConditionModel", config=UNET),
            "vae": Part(library="diffusers", name="AutoencoderKL", config=VAE),
            "text_encoder": Part(library="transformers", name="CLIPTextModel", config=CLIP_L),
        },
        scheduler="PNDMScheduler",
        schedule={**SCHEDULE, "skip_prk_steps": True, "set_alpha_to_one": False},
        tokenizers={"tokenizer": END},
        index={
            "safety_checker": [None, None],
            "feature_extractor": [None, None],
            "requires_safety_checker": False,
        },
    ),
    "sdxl": Shape(
        pipeline="StableDiffusionXLPipeline",
        parts={
            "unet": Part(library="diffusers", name="UNet2DConditionModel", config=UNET_XL),
            "vae": Part(library="diffusers", name="AutoencoderKL", config=VAE_XL),
            "text_encoder": Part(library="transformers", name="CLIPTextModel", config=CLIP_L),
            "text_encoder_2": Part(
                library="transformers", name="CLIPTextModelWithProjection", config=CLIP_G
            ),
        },
        scheduler="EulerDiscreteScheduler",
        schedule={
            **SCHEDULE,
            "timestep_spacing": "leading",
            "interpolation_type": "linear",
            "use_karras_sigmas": False,
        },
        tokenizers={"tokenizer": END, "tokenizer_2": "!"},
        index={"force_zeros_for_empty_prompt": True},
    ),
}


def parameters(part: Part) -> int:
    """Return how many weights a network has."""
    return sum(weight.numel() for weight in part.empty().parameters())
