"""Writing a model as one file with the names that CompVis gave its tensors."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

RESNET = (
    (r"\.norm1\.", ".in_layers.0."),
    (r"\.conv1\.", ".in_layers.2."),
    (r"\.time_emb_proj\.", ".emb_layers.1."),
    (r"\.norm2\.", ".out_layers.0."),
    (r"\.conv2\.", ".out_layers.3."),
    (r"\.conv_shortcut\.", ".skip_connection."),
)
UNET = (
    (r"^conv_in\.", "input_blocks.0.0."),
    (r"^time_embedding\.linear_1\.", "time_embed.0."),
    (r"^time_embedding\.linear_2\.", "time_embed.2."),
    (r"^conv_norm_out\.", "out.0."),
    (r"^conv_out\.", "out.2."),
    (r"^mid_block\.resnets\.0\.", "middle_block.0."),
    (r"^mid_block\.attentions\.0\.", "middle_block.1."),
    (r"^mid_block\.resnets\.1\.", "middle_block.2."),
)
VAE = (
    (r"\.down_blocks\.(\d)\.resnets\.", r".down.\1.block."),
    (r"\.down_blocks\.(\d)\.downsamplers\.0\.", r".down.\1.downsample."),
    (r"\.up_blocks\.(\d)\.resnets\.", r".up.\1.block."),
    (r"\.up_blocks\.(\d)\.upsamplers\.0\.", r".up.\1.upsample."),
    (r"\.mid_block\.resnets\.0\.", ".mid.block_1."),
    (r"\.mid_block\.resnets\.1\.", ".mid.block_2."),
    (r"\.mid_block\.attentions\.0\.group_norm\.", ".mid.attn_1.norm."),
    (r"\.mid_block\.attentions\.0\.to_([qkv])\.", r".mid.attn_1.\1."),
    (r"\.mid_block\.attentions\.0\.to_out\.0\.", ".mid.attn_1.proj_out."),
    (r"\.conv_shortcut\.", ".nin_shortcut."),
    (r"\.conv_norm_out\.", ".norm_out."),
)
LAYERS = 1
"""Layers per block of the tiny UNet; the numbering of CompVis counts them through."""


def write_single_file(folder: Path, path: Path) -> Path:
    """Write the tiny SD model of a folder in diffusers layout as one .safetensors file."""
    merged: dict[str, torch.Tensor] = {}
    for key, value in _part(folder, "unet").items():
        merged["model.diffusion_model." + _unet_name(key)] = value
    for key, value in _part(folder, "vae").items():
        # Its attention is written as 1x1 convolutions.
        name = _renamed(_counted_from_the_end(key), VAE)
        shaped = value[:, :, None, None] if "attn_1" in name and value.ndim == 2 else value
        merged["first_stage_model." + name] = shaped
    for key, value in _part(folder, "text_encoder").items():
        merged["cond_stage_model.transformer.text_model." + key.removeprefix("text_model.")] = value
    save_file({key: value.contiguous() for key, value in merged.items()}, path)
    return path


def _part(folder: Path, part: str) -> Mapping[str, torch.Tensor]:
    (path,) = (folder / part).glob("*.safetensors")
    return load_file(path)


def _unet_name(key: str) -> str:
    found = re.match(r"(down|up)_blocks\.(\d)\.(\w+)\.(\d)\.(.*)", key)
    if found is None:
        name = _renamed(key, UNET)
        return _renamed(name, RESNET) if re.match(r"middle_block\.[02]", name) else name
    side, block, kind, layer, rest = found.groups()
    size = LAYERS + 1
    if kind == "downsamplers":
        return f"input_blocks.{(int(block) + 1) * size}.0.op.{rest.removeprefix('conv.')}"
    if kind == "upsamplers":
        # Behind the residual block, and behind the attention where there is one.
        return f"output_blocks.{int(block) * size + LAYERS}.{2 if block == '0' else 1}.{rest}"
    index = int(block) * size + int(layer) + (1 if side == "down" else 0)
    blocks = "input_blocks" if side == "down" else "output_blocks"
    inner = _renamed("." + rest, RESNET) if kind == "resnets" else "." + rest
    return f"{blocks}.{index}.{0 if kind == 'resnets' else 1}{inner}"


def _counted_from_the_end(key: str) -> str:
    """Count the decoder blocks as CompVis does, from the end that makes the picture."""
    return re.sub(r"up_blocks\.(\d)", lambda found: f"up_blocks.{1 - int(found[1])}", key)


def _renamed(key: str, rules: Sequence[tuple[str, str]]) -> str:
    for pattern, name in rules:
        key = re.sub(pattern, name, key)
    return key
