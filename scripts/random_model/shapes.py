"""The shapes that can be built: the published ones, and tiny ones with all of their layers."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from service.models.figures import FIGURES, Figures

NARROW_CLIP: Final[Mapping[str, Any]] = {
    "vocab_size": 1000,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
"""Text embeddings keep their width: models and adapters of a family are known by it."""

NARROW: Final[Mapping[str, Mapping[str, Mapping[str, Any]]]] = {
    "sd15": {"unet": {"block_out_channels": (32, 64, 64, 64), "attention_head_dim": 2}},
    "sd21-v": {
        "unet": {"block_out_channels": (32, 64, 64, 64), "attention_head_dim": (2, 4, 4, 4)},
    },
    "sdxl": {
        "unet": {"block_out_channels": (32, 64, 64), "attention_head_dim": (2, 4, 4)},
        "text_encoder_2": NARROW_CLIP,
    },
}
"""What is narrower in the tiny shapes, next to the autoencoder and the first text encoder."""

PUBLISHED: Final[Mapping[str, Figures]] = {
    "sd15": FIGURES["sd", 768],
    "sd15-inpaint": FIGURES["sd", 768].for_inpainting(),
    "sd21-v": FIGURES["sd", 1024],
    "sdxl": FIGURES["sdxl", 2048],
    "sdxl-inpaint": FIGURES["sdxl", 2048].for_inpainting(),
}


def narrow(name: str) -> Figures:
    """Return a published shape with all blocks of its UNet, a tenth as wide."""
    shape = PUBLISHED[name]
    changes: dict[str, Mapping[str, Any]] = {
        "vae": {"block_out_channels": (32, 32, 32, 32)},
        "text_encoder": NARROW_CLIP,
        **NARROW[name.removesuffix("-inpaint")],
    }
    parts = {part: {**config, **changes[part]} for part, config in shape.parts.items()}
    return replace(shape, parts=parts)


SHAPES: Final[Mapping[str, Figures]] = {
    **PUBLISHED,
    **{f"tiny-{name}": narrow(name) for name in PUBLISHED},
}
