"""Adapter files without weights: only their headers say anything."""

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

TO_K = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"


def written(
    path: Path,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    metadata: dict[str, str] | None = None,
) -> Path:
    """Write tensors of zeros; by default a LoRA of one layer for SD 1.x.

    By hand, for Pythons without safetensors: the length of the header, the header, the numbers.
    """
    if shapes is None:
        shapes = low_rank(TO_K)
    path.parent.mkdir(parents=True, exist_ok=True)
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    end = 0
    for key, shape in shapes.items():
        begin, end = end, end + 2 * math.prod(shape)
        header[key] = {"dtype": "F16", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(end))
    return path


def low_rank(module: str, *, into: int = 768, out: int = 320) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a LoRA of rank 4 for one layer."""
    return {f"{module}.lora_down.weight": (4, into), f"{module}.lora_up.weight": (out, 4)}
