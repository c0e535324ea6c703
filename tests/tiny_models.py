"""Random-weight models of the true shapes of Stable Diffusion, small enough for a CPU test."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    EulerDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)

from scripts.random_weights import tokens

CHANNELS = (32, 64)
SCHEDULE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def tokenizer(folder: Path) -> CLIPTokenizer:
    """Build a CLIP tokenizer that knows letters only: one token per letter."""
    letters = [chr(c) for c in range(33, 127)]
    return tokens.write(folder, signs=letters, size=2 * len(letters) + len(tokens.MARKS))


def text_config(vocabulary: int, **changes: Any) -> CLIPTextConfig:
    """Describe a two-layer CLIP text encoder, 32 wide."""
    settings = {
        "vocab_size": vocabulary,
        "hidden_size": 32,
        "intermediate_size": 37,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 77,
        "bos_token_id": vocabulary - 2,
        "eos_token_id": vocabulary - 1,
        "pad_token_id": vocabulary - 1,
    }
    return CLIPTextConfig(**{**settings, **changes})


def autoencoder(**changes: Any) -> AutoencoderKL:
    """Build an AutoencoderKL that shrinks by two per side and has four latent channels."""
    settings: dict[str, Any] = {
        "block_out_channels": CHANNELS,
        "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D"],
        "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D"],
        "latent_channels": 4,
        "norm_num_groups": 8,
    }
    return AutoencoderKL(**{**settings, **changes})


def unet(**changes: Any) -> UNet2DConditionModel:
    """Build a two-level UNet with cross-attention."""
    settings: dict[str, Any] = {
        "block_out_channels": CHANNELS,
        "layers_per_block": 1,
        "sample_size": 32,
        "in_channels": 4,
        "out_channels": 4,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "cross_attention_dim": 32,
        "attention_head_dim": 8,
        "norm_num_groups": 8,
    }
    return UNet2DConditionModel(**{**settings, **changes})


def build_sd(
    folder: Path,
    *,
    vae: Any = None,
    unet_changes: Mapping[str, Any] | None = None,
    safety_checker: Any = None,
    feature_extractor: Any = None,
    **schedule: Any,
) -> Path:
    """Write a model of SD 1.5's shape; ``schedule`` changes its noise schedule."""
    torch.manual_seed(0)
    words = tokenizer(folder / "tokenizer")
    pipeline: Any = StableDiffusionPipeline(
        unet=unet(**(unet_changes or {})),
        vae=vae or autoencoder(),
        text_encoder=CLIPTextModel(text_config(len(words))),
        tokenizer=words,
        scheduler=PNDMScheduler(skip_prk_steps=True, steps_offset=1, **SCHEDULE, **schedule),
        safety_checker=safety_checker,
        feature_extractor=feature_extractor,
        requires_safety_checker=safety_checker is not None,
    )
    pipeline.save_pretrained(folder)
    return folder


def build_sdxl(folder: Path) -> Path:
    """Write a model of SDXL's shape: two text encoders, pooled text and six time ids."""
    torch.manual_seed(0)
    words = tokenizer(folder / "tokenizer")
    settings = text_config(len(words), hidden_act="gelu", projection_dim=32)
    pipeline: Any = StableDiffusionXLPipeline(
        unet=unet(
            cross_attention_dim=64,
            transformer_layers_per_block=(1, 2),
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=6 * 8 + 32,
        ),
        vae=autoencoder(),
        text_encoder=CLIPTextModel(settings),
        text_encoder_2=CLIPTextModelWithProjection(settings),
        tokenizer=words,
        tokenizer_2=words,
        scheduler=EulerDiscreteScheduler(timestep_spacing="leading", steps_offset=1, **SCHEDULE),
        force_zeros_for_empty_prompt=True,
        add_watermarker=False,
    )
    pipeline.save_pretrained(folder)
    return folder


def build_v_prediction(folder: Path) -> Path:
    """Write a model that predicts velocity, as SD 2.x at 768 does."""
    return build_sd(folder, prediction_type="v_prediction")


def build_lcm(folder: Path) -> Path:
    """Write a distilled model: the guidance scale enters by ``time_cond_proj_dim``."""
    return build_sd(folder, unet_changes={"time_cond_proj_dim": 16})


def build_tiny_vae(folder: Path) -> Path:
    """Write a model with an AutoencoderTiny of twelve channels that shrinks by four."""
    torch.manual_seed(1)
    small = AutoencoderTiny(
        latent_channels=12,
        encoder_block_out_channels=(16, 16, 16),
        decoder_block_out_channels=(16, 16, 16),
        num_encoder_blocks=(1, 1, 1),
        num_decoder_blocks=(1, 1, 1),
    )
    return build_sd(folder, vae=small, unet_changes={"in_channels": 12, "out_channels": 12})


def build_lenient(folder: Path) -> Path:
    """Write a model with a safety checker that flags nothing."""
    return build_with_safety_checker(folder, strict=False)


def build_with_safety_checker(folder: Path, *, strict: bool) -> Path:
    """Write a model with a safety checker that flags everything, or nothing."""
    torch.manual_seed(2)
    tower = {
        "hidden_size": 32,
        "intermediate_size": 37,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
    }
    checker = StableDiffusionSafetyChecker(
        CLIPConfig(
            text_config=tower,
            vision_config={**tower, "image_size": 32, "patch_size": 16},
            projection_dim=16,
        )
    )
    # A cosine is at least -1, and at most 1.
    checker.concept_embeds_weights.data.fill_(-2.0 if strict else 2.0)
    checker.special_care_embeds_weights.data.fill_(2.0)
    eyes = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    return build_sd(folder, safety_checker=checker, feature_extractor=eyes)
