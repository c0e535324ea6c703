"""A checkpoint in one .safetensors file: what its header tells of the model in it."""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from service.errors import ModelUnsuitable
from service.models import weights
from service.models.parts import SUPPORTED, for_inpainting

UNET: Final = "model.diffusion_model."
VAE: Final = "first_stage_model."
SD_TEXT: Final = "cond_stage_model."
XL_TEXT: Final = "conditioner."
PARTS: Final = (UNET, VAE, SD_TEXT, XL_TEXT)

GUIDANCE: Final = f"{UNET}time_embed.cond_proj.weight"
"""What takes the guidance scale of a distilled model in."""

NO_WEIGHTS: Final = re.compile(
    r"model_ema\..*|(?:sqrt_|log_)?(?:one_minus_|recip_|recipm1_)*alphas_cumprod(?:_prev)?|betas"
    r"|posterior_\w+|lvlb_weights|logvar|denoiser\.sigmas|global_step|epoch"
    r"|.*\.(?:position_ids|logit_scale|scale_input|scaled_fp8)"
    r"|first_stage_model\.(?:loss|model_ema)\..*"
)
"""Tensors that training leaves in a file, of known meaning, and that draw nothing."""

VELOCITY: Final = "v_pred"
ZERO_SNR: Final = "ztsnr"
SCALED: Final = "scaled_fp8"
SCALE: Final = ".scale_weight"
MARKERS: Final = frozenset({VELOCITY, ZERO_SNR, SCALED})
"""Tensors without a weight in them, whose names say how the model was trained or packed."""

EDM: Final = "edm"
MARKER_VALUES: Final = 16
"""A tensor of a few numbers next to the parts says something about the model, too."""

QUANTISED: Final = re.compile(
    r".*\.(?:comfy_quant|weight_scale(?:_2)?|input_scale|absmax|nested_absmax|quant_map"
    r"|nested_quant_map|quant_state\..*|qweight|qzeros|wscales|smooth_factor|SCB|weight_format)"
)

PREDICTIONS: Final = {
    **dict.fromkeys(("v", "v_prediction", "v-prediction"), "v_prediction"),
    **dict.fromkeys(("epsilon", "eps"), "epsilon"),
}
"""``modelspec.prediction_type`` of the standard ModelSpec, as tools write it into the header."""

ARCHITECTURES: Final = {
    "stable-diffusion-v2-512": "epsilon",
    "stable-diffusion-v2-768-v": "v_prediction",
}
"""``modelspec.architecture`` of models whose kind has both."""

SHOWN: Final = 3


@dataclass(frozen=True, kw_only=True)
class TextEncoder:
    """One text encoder in a file."""

    prefix: str
    """What the names of its tensors begin with."""
    open_clip: bool
    """Whether they go on as OpenCLIP has them, or as CLIP has them in transformers."""
    width: int
    layers: int
    vocabulary: int
    """Rows of its table of tokens."""


@dataclass(frozen=True, kw_only=True)
class SingleFile:
    """What the header of a checkpoint tells."""

    path: Path
    family: str
    """``sd`` or ``sdxl``."""
    text_width: int
    """Width of the text embeddings that the UNet takes."""
    unet_width: int
    """Channels of the UNet's first block."""
    channels: int
    """Of the latents."""
    input_channels: int
    """Of the UNet; more than those of the latents in an inpainting model."""
    guidance_width: int | None
    """Of the embedding of the guidance scale, in a distilled model."""
    encoders: Mapping[str, TextEncoder]
    """By part."""
    unet_blocks: int
    """Blocks of the UNet's way down."""
    middle_block: bool
    transformers: int
    """Transformer blocks of the UNet."""
    markers: frozenset[str]
    prediction: str | None
    """The prediction type that the header's metadata names."""
    ignored: tuple[str, ...]
    """First parts of the names of tensors that belong to no part."""


def read(path: Path) -> SingleFile:
    """Tell what kind of model a checkpoint holds.

    Raises:
        ModelError: the file is damaged.
        ModelUnsuitable: it is another kind of model, only a part of one, or has tensors that
            change the image in a way that is not followed here.

    """
    rows = weights.header(path)
    shapes = {name: tuple(row["shape"]) for name, row in rows.items()}
    widths = [
        shape[-1]
        for name, shape in shapes.items()
        if name.startswith(UNET) and name.endswith(".attn2.to_k.weight") and len(shape) > 1
    ]
    first = shapes.get(f"{UNET}input_blocks.0.0.weight")
    has_vae = any(name.startswith(VAE) for name in shapes)
    if not widths or first is None or len(first) < len(("out", "in")) or not has_vae:
        raise ModelUnsuitable(
            f"{path} is no complete Stable Diffusion checkpoint: it lacks a UNet with "
            f"cross-attention or a VAE (a LoRA, a VAE or another model?). {SUPPORTED}"
        )
    (_, latent, *_) = (*shapes.get(f"{VAE}post_quant_conv.weight", first), 0, 0)
    if first[1] != latent and not for_inpainting(first[1], latent):
        raise ModelUnsuitable(
            f"{path} is an editing or depth model: its UNet takes {first[1]} channels, and its "
            f"latents have {latent}. {SUPPORTED}"
        )
    family, encoders = _encoders(path, shapes)
    guidance = shapes.get(GUIDANCE)
    metadata = weights.metadata(path)
    return SingleFile(
        path=path,
        family=family,
        text_width=widths[0],
        unet_width=first[0],
        channels=latent,
        input_channels=first[1],
        guidance_width=guidance[1] if guidance else None,
        encoders=encoders,
        unet_blocks=len(_numbers(shapes, rf"{UNET}input_blocks\.(\d+)\.")),
        middle_block=any(name.startswith(f"{UNET}middle_block.") for name in shapes),
        transformers=len(_numbers(shapes, rf"({UNET}.*\.transformer_blocks\.\d+)\.")),
        markers=_markers(path, rows),
        prediction=PREDICTIONS.get(str(metadata.get("modelspec.prediction_type")).lower())
        or ARCHITECTURES.get(str(metadata.get("modelspec.architecture")).lower()),
        ignored=_ignored(shapes),
    )


def _markers(path: Path, rows: Mapping[str, Mapping[str, Any]]) -> frozenset[str]:
    """Return what the file says of itself by tensors that are no weights."""
    others = {
        name: row
        for name, row in rows.items()
        if not name.startswith(PARTS) and not NO_WEIGHTS.fullmatch(name)
    }
    if edm := [name for name in others if name.startswith(EDM)]:
        raise ModelUnsuitable(
            f"{path} is an EDM model ({_some(edm)}), and no sampler here follows its noise "
            f"schedule. {SUPPORTED}"
        )
    if packed := [name for name in rows if QUANTISED.fullmatch(name)]:
        raise ModelUnsuitable(
            f"{path} is quantised in a way that is not read ({_some(packed)}). Use the file in "
            "float16 or float32, or in float8 with scale_weight."
        )
    whole = [
        name
        for name, row in rows.items()
        if name.startswith(PARTS)
        and not NO_WEIGHTS.fullmatch(name)
        and row["dtype"] not in weights.FLOATS
    ]
    if whole:
        raise ModelUnsuitable(
            f"{path} has weights in {rows[whole[0]]['dtype']} ({_some(whole)}), which is not read. "
            "Use the file in float16 or float32."
        )
    unknown = [
        name
        for name, row in others.items()
        if name not in MARKERS and math.prod(row["shape"]) <= MARKER_VALUES
    ]
    if unknown:
        raise ModelUnsuitable(
            f"{path} has metadata that is not understood ({_some(unknown)}), and may "
            "draw another image than it should. Use the model in diffusers layout."
        )
    if ZERO_SNR in others and VELOCITY not in others:
        # A zero signal cannot be drawn from by predicted noise: it always means both.
        return frozenset({*(MARKERS & others.keys()), VELOCITY})
    return MARKERS & others.keys()


def _ignored(shapes: Iterable[str]) -> tuple[str, ...]:
    groups = {
        name.split(".", 1)[0]
        for name in shapes
        if not name.startswith(PARTS) and name not in MARKERS and not NO_WEIGHTS.fullmatch(name)
    }
    return tuple(sorted(groups))


def _encoders(
    path: Path, shapes: Mapping[str, tuple[int, ...]]
) -> tuple[str, dict[str, TextEncoder]]:
    second = _encoder(shapes, "conditioner.embedders.1.model.", open_clip=True)
    if second is not None:
        prefix = "conditioner.embedders.0.transformer."
        if (one := _encoder(shapes, prefix, open_clip=False)) is not None:
            return "sdxl", {"text_encoder": one, "text_encoder_2": second}
    for prefix, open_clip in ((f"{SD_TEXT}transformer.", False), (f"{SD_TEXT}model.", True)):
        if (one := _encoder(shapes, prefix, open_clip=open_clip)) is not None:
            return "sd", {"text_encoder": one}
    raise ModelUnsuitable(
        f"{path} has no text encoder of Stable Diffusion 1.x, 2.x or XL. {SUPPORTED}"
    )


def _encoder(
    shapes: Mapping[str, tuple[int, ...]], prefix: str, *, open_clip: bool
) -> TextEncoder | None:
    own = {
        name.removeprefix(prefix).removeprefix("text_model."): shape
        for name, shape in shapes.items()
        if name.startswith(prefix)
    }
    table = own.get(
        "token_embedding.weight" if open_clip else "embeddings.token_embedding.weight", ()
    )
    pattern = (
        r"transformer\.resblocks\.(\d{1,4})\." if open_clip else r"encoder\.layers\.(\d{1,4})\."
    )
    layers = {int(found[1]) for name in own if (found := re.match(pattern, name))}
    if len(table) != 2 or not layers:  # noqa: PLR2004 - rows and columns
        return None
    return TextEncoder(
        prefix=prefix,
        open_clip=open_clip,
        width=table[1],
        layers=max(layers) + 1,
        vocabulary=table[0],
    )


def _numbers(names: Iterable[str], pattern: str) -> set[str]:
    """Return what the names have at the group of a pattern."""
    return {found[1] for name in names if (found := re.match(pattern, name))}


def _some(names: list[str]) -> str:
    shown = ", ".join(sorted(names)[:SHOWN])
    return shown if len(names) <= SHOWN else f"{shown} and {len(names) - SHOWN} more"
