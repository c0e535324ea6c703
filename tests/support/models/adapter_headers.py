"""Adapter files without weights: only their headers say anything."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

TO_K = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"


def written(
    path: Path,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    metadata: dict[str, str] | None = None,
) -> Path:
    """Write tensors of zeros; by default a LoRA of one layer for SD 1.x."""
    if shapes is None:
        shapes = low_rank(TO_K)
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {key: np.zeros(shape, np.float16) for key, shape in shapes.items()}
    save_file(tensors, path, metadata)
    return path


def low_rank(module: str, *, into: int = 768, out: int = 320) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a LoRA of rank 4 for one layer."""
    return {f"{module}.lora_down.weight": (4, into), f"{module}.lora_up.weight": (out, 4)}
