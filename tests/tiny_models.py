"""Random-weight models of the true shapes of Stable Diffusion, small enough for a CPU test."""

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    PNDMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)

CHANNELS = (32, 64)
SCHEDULE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def tokenizer(folder: Path) -> CLIPTokenizer:
    """Build a CLIP tokenizer that knows letters only: one token per letter."""
    letters = [chr(c) for c in range(33, 127)]
    tokens = [*letters, *(letter + "</w>" for letter in letters)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = folder / "vocab.json"
    merges = folder / "merges.txt"
    vocabulary.write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    merges.write_text("#version: 0.2\n")
    return CLIPTokenizer(str(vocabulary), str(merges), model_max_length=77)


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


def vae(**changes: Any) -> AutoencoderKL:
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


def build_sd(folder: Path, **scheduler: Any) -> Path:
    """Write a model of SD 1.5's shape; ``prediction_type='v_prediction'`` makes it SD 2's."""
    torch.manual_seed(0)
    words = tokenizer(folder / "tokenizer")
    StableDiffusionPipeline(
        unet=unet(),
        vae=vae(),
        text_encoder=CLIPTextModel(text_config(len(words))),
        tokenizer=words,
        scheduler=PNDMScheduler(skip_prk_steps=True, steps_offset=1, **SCHEDULE, **scheduler),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return folder
