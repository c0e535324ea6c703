"""Whether a configuration is that of a checkpoint in a single file, by what the header tells."""

from collections.abc import Mapping
from typing import Any, Final

from service.models import parts
from service.models.single_file import SingleFile

UNKNOWN: Final = "unknown"
"""A figure that a configuration does not tell."""


def mismatch(file: SingleFile, configs: Mapping[str, Mapping[str, Any]]) -> str:
    """Return where a configuration and the tensors of a file differ; empty if nowhere."""
    unet = configs["unet"]
    rows: list[tuple[str, object, object]] = [
        (
            "width of the UNet's first block",
            _first(unet.get("block_out_channels")),
            file.unet_width,
        ),
        ("channels that the UNet takes", unet.get("in_channels", 4), file.input_channels),
        ("width of the UNet's text embeddings", unet.get("cross_attention_dim"), file.text_width),
        ("width of the guidance embedding", unet.get("time_cond_proj_dim"), file.guidance_width),
        ("blocks of the UNet's way down", _blocks(unet), file.unet_blocks),
        ("UNet with a middle block", bool(unet.get("mid_block_type", True)), file.middle_block),
        ("transformer blocks of the UNet", _transformers(unet), file.transformers),
        ("channels of the VAE's latents", configs["vae"].get("latent_channels", 4), file.channels),
    ]
    for part, encoder in file.encoders.items():
        config = parts.text_config(configs[part])
        # SD 2 was trained on the last layer but one of OpenCLIP, and its files hold all.
        spare = encoder.open_clip and config.get("num_hidden_layers") == encoder.layers - 1
        layers = encoder.layers - 1 if spare else encoder.layers
        rows += [
            (f"width of the {part}", config.get("hidden_size"), encoder.width),
            (f"layers of the {part}", config.get("num_hidden_layers"), layers),
            (f"tokens of the {part}", config.get("vocab_size"), encoder.vocabulary),
        ]
    return next(
        (f"{what}: {ours}, not {its}" for what, ours, its in rows if ours not in (its, UNKNOWN)), ""
    )


def _blocks(unet: Mapping[str, Any]) -> object:
    """Return how many blocks CompVis' names count on the way down."""
    widths, layers = unet.get("block_out_channels"), unet.get("layers_per_block", 2)
    if not isinstance(widths, list | tuple) or type(layers) is not int:
        return UNKNOWN
    return len(widths) * (layers + 1)


def _transformers(unet: Mapping[str, Any]) -> object:
    """Return how many transformer blocks a configuration means, where it is simple enough."""
    down, up = unet.get("down_block_types"), unet.get("up_block_types")
    layers, depth = unet.get("layers_per_block", 2), unet.get("transformer_layers_per_block", 1)
    if not isinstance(down, list | tuple) or not isinstance(up, list | tuple):
        return UNKNOWN
    depths = [depth] * len(down) if type(depth) is int else depth
    if type(layers) is not int or not isinstance(depths, list | tuple):
        return UNKNOWN
    if len(depths) != len(down) or not all(type(each) is int for each in depths):
        return UNKNOWN
    forth = [
        each if "CrossAttn" in str(kind) else 0 for each, kind in zip(depths, down, strict=True)
    ]
    back = [
        each if "CrossAttn" in str(kind) else 0
        for each, kind in zip(reversed(depths), up, strict=False)
    ]
    middle = depths[-1] if unet.get("mid_block_type", True) else 0
    return layers * sum(forth) + (layers + 1) * sum(back) + middle


def _first(values: object) -> object:
    return values[0] if isinstance(values, list | tuple) and values else None
