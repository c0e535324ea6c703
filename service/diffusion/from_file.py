"""The parts of a checkpoint in a single file: CompVis' and OpenCLIP's names to diffusers' own."""

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
import transformers
from accelerate import init_empty_weights
from diffusers.loaders.single_file_utils import (
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
    convert_open_clip_checkpoint,
)
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from safetensors import safe_open

from service.diffusion.from_folder import NO_CHECKER, read_tokenizer
from service.errors import ModelError, ModelUnsuitable
from service.models.layout import Layout, put_next_to
from service.models.parts import text_config, tokenizer_of
from service.models.single_file import (
    GUIDANCE,
    NO_WEIGHTS,
    PARTS,
    SCALE,
    UNET,
    VAE,
    SingleFile,
    TextEncoder,
)

Weights = dict[str, torch.Tensor]

SHOWN: Final = 3
OPEN: Final = re.compile(
    r"(?:token_embedding|ln_final)\.(?:weight|bias)|positional_embedding|text_projection|attn_mask"
    r"|transformer\.resblocks\.\d+\.(?:ln_[12]|attn\.out_proj|mlp\.c_fc|mlp\.c_proj)\.(?:weight|bias)"
    r"|transformer\.resblocks\.\d+\.attn\.in_proj_(?:weight|bias)"
)
"""Tensors of OpenCLIP's text encoder; the conversion passes over any other."""


def read_parts(layout: Layout, *, dtype: torch.dtype) -> dict[str, Any]:
    """Return the arguments of the pipeline: networks in ``dtype`` on the CPU, and tokenizers.

    Raises:
        ModelUnsuitable: the file lacks a weight that its configuration asks for, or has one that
            the configuration has no place for.

    """
    file = layout.file
    if file is None:  # pragma: no cover - a folder is read elsewhere
        raise ModelError("There is no single file to read.")
    held = _held(file)
    with init_empty_weights(include_buffers=False):
        unet = UNet2DConditionModel.from_config(dict(layout.configs["unet"]))
        vae = AutoencoderKL.from_config(dict(layout.configs["vae"]))
    found: dict[str, Any] = {"unet": unet, "vae": vae}
    for part, prefix, convert in (
        ("unet", UNET, convert_ldm_unet_checkpoint),
        ("vae", VAE, convert_ldm_vae_checkpoint),
    ):
        own = _taken(held, prefix)
        named = convert(dict(own), found[part].config)
        if part == "unet" and GUIDANCE in own:  # diffusers' conversion passes over it.
            named["time_embedding.cond_proj.weight"] = own[GUIDANCE]
        read = {value.data_ptr() for value in named.values()}
        _demand_understood(file, [key for key in own if own[key].data_ptr() not in read])
        _fill(found[part], named, layout, part, dtype)
    for part, encoder in file.encoders.items():
        found[part] = _text_encoder(part, encoder, held, layout, dtype)
    _demand_understood(file, list(held))
    return found | _tokenizers(layout) | ({} if layout.family == "sdxl" else NO_CHECKER)


def _taken(held: Weights, prefix: str) -> Weights:
    """Take the tensors of one part out, so that their memory is free once they are cast."""
    return {name: held.pop(name) for name in [name for name in held if name.startswith(prefix)]}


def _held(file: SingleFile) -> Weights:
    """Read the tensors of all parts; those in float8 with a scale are multiplied by it."""
    with safe_open(file.path, framework="pt") as opened:
        names = [name for name in opened.keys() if name.startswith(PARTS)]  # noqa: SIM118 - it is no mapping
        held = {name: opened.get_tensor(name) for name in names if not NO_WEIGHTS.fullmatch(name)}
    for name in [name for name in held if name.endswith(SCALE)]:
        scale, owner = held.pop(name), f"{name.removesuffix(SCALE)}.weight"
        weight = held.get(owner)
        if weight is None:
            raise ModelUnsuitable(
                f"{file.path} has the scale {name} and not the weights that it is for. Use the "
                "file in float16 or float32."
            )
        if scale.numel() not in {1, *weight.shape[:1]}:
            raise ModelUnsuitable(
                f"{file.path} has {scale.numel()} scales in {name}, and {owner} has "
                f"{weight.shape[0]} rows. Use the file in float16 or float32."
            )
        rows = scale.float().reshape(-1, *(1,) * (weight.dim() - 1)) if scale.numel() > 1 else scale
        held[owner] = weight.float() * rows.float()
    return held


def _text_encoder(
    part: str, encoder: TextEncoder, held: Weights, layout: Layout, dtype: torch.dtype
) -> Any:
    projected = part == "text_encoder_2"
    kind: Any = (
        transformers.CLIPTextModelWithProjection if projected else transformers.CLIPTextModel
    )
    settings = transformers.CLIPTextConfig.from_dict(dict(text_config(layout.configs[part])))
    with init_empty_weights(include_buffers=False):
        network = kind(settings)
    own = _taken(held, encoder.prefix)
    if encoder.open_clip:
        if layout.file is not None:
            unknown = [key for key in own if not OPEN.fullmatch(key.removeprefix(encoder.prefix))]
            _demand_understood(layout.file, unknown)
        named = convert_open_clip_checkpoint(network, own, prefix=encoder.prefix)
        spare = f"text_model.encoder.layers.{settings.num_hidden_layers}."
        named = {key: value for key, value in named.items() if not key.startswith(spare)}
    else:
        # Some files leave a part of the names out.
        short = [(key.removeprefix(encoder.prefix).removeprefix("text_model."), key) for key in own]
        named = {f"text_model.{name}": own[key] for name, key in short}
        if layout.file is not None and len(named) < len(short):
            kept = dict(short)
            _demand_understood(layout.file, [key for name, key in short if kept[name] != key])
    if not projected:
        for spare in ("text_projection.weight", "text_model.text_projection.weight"):
            named.pop(spare, None)  # Only a model with a projection reads it.
    # Newer transformers dropped this prefix from the names in memory.
    if not hasattr(network, "text_model"):
        named = {key.removeprefix("text_model."): value for key, value in named.items()}
    _fill(network, named, layout, part, dtype)
    return network


def _fill(
    network: Any, named: Mapping[str, torch.Tensor], layout: Layout, part: str, dtype: torch.dtype
) -> None:
    fill(
        network,
        named,
        owner=str(layout.file.path if layout.file else layout.configuration),
        configuration=layout.configuration,
        cure=put_next_to(layout.file) if layout.file else "",
        part=part,
        dtype=dtype,
    )


def fill(
    network: Any,
    named: Mapping[str, torch.Tensor],
    *,
    owner: str,
    configuration: str,
    cure: str,
    part: str,
    dtype: torch.dtype,
) -> None:
    """Give a network without memory its weights: all of them, and no others.

    Raises:
        ModelUnsuitable: a weight is missing, unknown, or of another shape than the configuration
            says; the error names ``owner``, and ends with the ``cure``.

    """
    wanted = {key: value.shape for key, value in network.named_parameters()}
    named = {key: value for key, value in named.items() if not NO_WEIGHTS.fullmatch(key)}
    if missing := [key for key in wanted if key not in named]:
        raise ModelUnsuitable(
            f"{owner} lacks {len(missing)} weights of the {part} that its configuration asks for "
            f"({_some(missing)}). The configuration is: {configuration}. {cure}"
        )
    if unknown := [key for key in named if key not in wanted]:
        raise ModelUnsuitable(
            f"{owner} has {len(unknown)} weights of the {part} for which its configuration has no "
            f"place ({_some(unknown)}). The configuration is: {configuration}. {cure}"
        )
    for key, shape in wanted.items():
        if named[key].shape != shape:
            raise ModelUnsuitable(
                f"{owner}: {key} of the {part} is {tuple(named[key].shape)}, and its "
                f"configuration says {tuple(shape)}. The configuration is: "
                f"{configuration}. {cure}"
            )
    cast = {key: value.to(dtype).contiguous() for key, value in named.items()}
    network.load_state_dict(cast, strict=False, assign=True)
    network.to(dtype).requires_grad_(False).eval()


def _demand_understood(file: SingleFile, rest: list[str]) -> None:
    """Refuse tensors inside the parts that no part has read."""
    if rest:
        raise ModelUnsuitable(
            f"{file.path} has {len(rest)} tensors that are not understood ({_some(rest)}), and "
            "would draw another image without them. Use the model in diffusers layout."
        )


def _tokenizers(layout: Layout) -> dict[str, Any]:
    names = [tokenizer_of(part) for part in layout.configs if part.startswith("text_encoder")]
    if layout.tokenizers is not None:
        folder = layout.tokenizers
        return {name: read_tokenizer(folder / name, str(layout.index[name][1])) for name in names}
    found = {}
    with tempfile.TemporaryDirectory(prefix="tokenizer-") as folder_name:
        for name in names:
            place = Path(folder_name) / name
            if layout.vocabulary is not None:
                layout.vocabulary.write(place, layout.padding[name])
            found[name] = read_tokenizer(place, "CLIPTokenizer")
    return found


def _some(names: list[str]) -> str:
    shown = ", ".join(sorted(names)[:SHOWN])
    return shown if len(names) <= SHOWN else f"{shown} and {len(names) - SHOWN} more"
