"""Writing a model as one file with the names that CompVis and OpenCLIP gave its tensors."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

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
    (r"^time_embedding\.cond_proj\.", "time_embed.cond_proj."),
    (r"^add_embedding\.linear_1\.", "label_emb.0.0."),
    (r"^add_embedding\.linear_2\.", "label_emb.0.2."),
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
OPEN_CLIP = (
    (r"^embeddings\.token_embedding\.weight$", "token_embedding.weight"),
    (r"^embeddings\.position_embedding\.weight$", "positional_embedding"),
    (r"^final_layer_norm\.", "ln_final."),
    (r"^encoder\.layers\.", "transformer.resblocks."),
    (r"\.layer_norm([12])\.", r".ln_\1."),
    (r"\.mlp\.fc1\.", ".mlp.c_fc."),
    (r"\.mlp\.fc2\.", ".mlp.c_proj."),
    (r"\.self_attn\.out_proj\.", ".attn.out_proj."),
)
Tensors = dict[str, torch.Tensor]


def write_single_file(
    folder: Path,
    path: Path,
    *,
    open_clip: bool = False,
    extra: Mapping[str, torch.Tensor] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Write the model of a folder in diffusers layout as one .safetensors file.

    With ``open_clip`` its text encoder is written as SD 2's: with one layer more than is used.
    ``extra`` are tensors beside those of the parts: markers, or what training left.
    """
    merged: Tensors = {}
    config = json.loads((folder / "unet" / "config.json").read_text())
    for key, value in _part(folder, "unet").items():
        merged["model.diffusion_model." + _unet_name(key, config)] = value
    last = len(json.loads((folder / "vae" / "config.json").read_text())["block_out_channels"]) - 1
    for key, value in _part(folder, "vae").items():
        # Its attention is written as 1x1 convolutions.
        name = _renamed(_counted_from_the_end(key, last), VAE)
        shaped = value[:, :, None, None] if "attn_1" in name and value.ndim == 2 else value
        merged["first_stage_model." + name] = shaped
    texts = _text(folder, "text_encoder")
    if (folder / "text_encoder_2").is_dir():
        prefix = "conditioner.embedders.0.transformer.text_model."
        merged |= {prefix + key: value for key, value in texts.items()}
        second = _open_clip(_text(folder, "text_encoder_2"))
        merged |= {"conditioner.embedders.1.model." + key: value for key, value in second.items()}
    elif open_clip:
        layer = max(int(found[1]) for key in texts if (found := re.search(r"layers\.(\d+)\.", key)))
        texts |= {
            key.replace(f"layers.{layer}.", f"layers.{layer + 1}."): torch.rand_like(value)
            for key, value in texts.items()
            if f"layers.{layer}." in key
        }
        merged |= {"cond_stage_model.model." + k: v for k, v in _open_clip(texts).items()}
    else:
        prefix = "cond_stage_model.transformer.text_model."
        merged |= {prefix + key: value for key, value in texts.items()}
    merged |= extra or {}
    save_file(
        {key: value.clone().contiguous() for key, value in merged.items()},
        path,
        metadata=dict(metadata or {}),
    )
    return path


def _part(folder: Path, part: str) -> Mapping[str, torch.Tensor]:
    (path,) = (folder / part).glob("*.safetensors")
    return load_file(path)


def _text(folder: Path, part: str) -> Tensors:
    return {
        key.removeprefix("text_model."): value
        for key, value in _part(folder, part).items()
        if not key.endswith("position_ids")
    }


def _open_clip(texts: Tensors) -> Tensors:
    """Write queries, keys and values of each layer as one tensor, as OpenCLIP does."""
    found: Tensors = {}
    for key, value in texts.items():
        if key == "text_projection.weight":
            found["text_projection"] = value.T
        elif (ours := re.search(r"\.self_attn\.([qkv])_proj\.(weight|bias)$", key)) is None:
            found[_renamed(key, OPEN_CLIP)] = value
        elif ours[1] == "q":
            name = re.sub(r"self_attn\.q_proj\.(\w+)$", r"attn.in_proj_\1", key)
            rows = [texts[key.replace("q_proj", f"{one}_proj")] for one in "qkv"]
            found[_renamed(name, OPEN_CLIP)] = torch.cat(rows)
    return found


def _unet_name(key: str, config: Mapping[str, Any]) -> str:
    found = re.match(r"(down|up)_blocks\.(\d)\.(\w+)\.(\d)\.(.*)", key)
    if found is None:
        name = _renamed(key, UNET)
        return _renamed(name, RESNET) if re.match(r"middle_block\.[02]", name) else name
    side, block, kind, layer, rest = found.groups()
    size = int(config["layers_per_block"]) + 1
    if kind == "downsamplers":
        return f"input_blocks.{(int(block) + 1) * size}.0.op.{rest.removeprefix('conv.')}"
    if kind == "upsamplers":
        # Behind the residual block, and behind the attention where there is one.
        attention = "CrossAttn" in config["up_block_types"][int(block)]
        return f"output_blocks.{int(block) * size + size - 1}.{2 if attention else 1}.{rest}"
    index = int(block) * size + int(layer) + (1 if side == "down" else 0)
    blocks = "input_blocks" if side == "down" else "output_blocks"
    inner = _renamed("." + rest, RESNET) if kind == "resnets" else "." + rest
    return f"{blocks}.{index}.{0 if kind == 'resnets' else 1}{inner}"


def _counted_from_the_end(key: str, last: int) -> str:
    """Count the decoder blocks as CompVis does, from the end that makes the image."""
    return re.sub(r"up_blocks\.(\d)", lambda found: f"up_blocks.{last - int(found[1])}", key)


def _renamed(key: str, rules: Sequence[tuple[str, str]]) -> str:
    for pattern, name in rules:
        key = re.sub(pattern, name, key)
    return key
