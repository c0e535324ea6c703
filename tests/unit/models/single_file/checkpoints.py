"""Checkpoints of the few tensors by which a kind of model is known."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from service.models import single_file

UNET = single_file.UNET
CROSS = UNET + "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
FIRST = UNET + "input_blocks.0.0.weight"
VAE = "first_stage_model.post_quant_conv.weight"
CLIP = "cond_stage_model.transformer.text_model."
OPEN = "cond_stage_model.model."
XL = ("conditioner.embedders.0.transformer.text_model.", "conditioner.embedders.1.model.")


def clip(prefix: str, *, width: int, layers: int, tokens: int) -> dict[str, tuple[int, ...]]:
    """Return the few tensors by which a text encoder of transformers is known."""
    found = {f"{prefix}embeddings.token_embedding.weight": (tokens, width)}
    return found | {f"{prefix}encoder.layers.{n}.mlp.fc1.bias": (1,) for n in range(layers)}


def open_clip(prefix: str, *, width: int, layers: int, tokens: int) -> dict[str, tuple[int, ...]]:
    """Return the few tensors by which a text encoder of OpenCLIP is known."""
    found = {f"{prefix}token_embedding.weight": (tokens, width)}
    return found | {f"{prefix}transformer.resblocks.{n}.mlp.c_fc.bias": (1,) for n in range(layers)}


def checkpoint(
    path: Path,
    *,
    width: int = 32,
    unet: int = 32,
    channels: int = 4,
    blocks: int = 4,
    transformers: int = 4,
    texts: Mapping[str, tuple[int, ...]] | None = None,
    metadata: dict[str, str] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Path:
    """Write the few tensors by which a checkpoint's kind is told; ``extra`` are further ones."""
    shapes = {FIRST: (unet, channels, 3, 3), CROSS: (8, width), VAE: (4, 4, 1, 1)}
    shapes |= {f"{UNET}input_blocks.{n}.0.x": (1,) for n in range(blocks)}
    shapes |= {
        f"{UNET}middle_block.1.transformer_blocks.{n}.x": (1,) for n in range(transformers - 1)
    }
    shapes |= clip(CLIP, width=width, layers=2, tokens=190) if texts is None else dict(texts)
    tensors = {key: np.zeros(shape, np.float16) for key, shape in shapes.items()}
    save_file({**tensors, **(extra or {})}, path, metadata)
    return path


XL_TEXTS = clip(XL[0], width=768, layers=12, tokens=49408) | open_clip(
    XL[1], width=1280, layers=32, tokens=49408
)
REAL: Mapping[tuple[str, int], dict[str, Any]] = {
    ("sd", 768): {
        "width": 768,
        "unet": 320,
        "blocks": 12,
        "transformers": 16,
        "texts": clip(CLIP, width=768, layers=12, tokens=49408),
    },
    ("sd", 1024): {
        "width": 1024,
        "unet": 320,
        "blocks": 12,
        "transformers": 16,
        "texts": open_clip(OPEN, width=1024, layers=24, tokens=49408),
    },
    ("sdxl", 2048): {
        "width": 2048,
        "unet": 320,
        "blocks": 9,
        "transformers": 70,
        "texts": XL_TEXTS,
    },
}
"""What the headers of Stable Diffusion 1.5, 2.1 and XL say."""
