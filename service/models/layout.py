"""What a checkpoint says it is, read from its small files before its weights are loaded."""

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from service.errors import ModelError, ModelUnsuitable
from service.models import catalog, weights
from service.models.catalog import Source

FAMILIES = {
    "StableDiffusionPipeline": "sd",
    "LatentConsistencyModelPipeline": "sd",
    "StableDiffusionXLPipeline": "sdxl",
}
"""Family by the pipeline class that a folder names; a consistency model has SD's parts."""
SUPPORTED = "Supported are Stable Diffusion 1.x, 2.x and XL text-to-image models."
PARTS = {
    "unet": {"UNet2DConditionModel"},
    "vae": {"AutoencoderKL", "AutoencoderTiny"},
    "text_encoder": {"CLIPTextModel", "CLIPTextModelWithProjection"},
    "text_encoder_2": {"CLIPTextModelWithProjection"},
}
"""Classes that each part with weights may have; what a folder names is not imported."""
FOREIGN_NOISE = ("EDM", "FlowMatch")
"""Schedulers of these prefixes describe a noise schedule that our samplers do not follow."""
UNET_PREFIX = "model.diffusion_model."
REFERENCE_MODELS = {
    ("sd", 768): "stable-diffusion-v1-5/stable-diffusion-v1-5",
    ("sd", 1024): "stabilityai/stable-diffusion-2-1",
    ("sdxl", 2048): "stabilityai/stable-diffusion-xl-base-1.0",
}
"""Whose configuration a single file has, by family and width of its text embeddings."""


@dataclass(frozen=True, kw_only=True)
class SingleFile:
    """What the header of a single-file checkpoint tells."""

    family: str
    text_width: int
    """Width of the text embeddings that the UNet takes."""
    unet_width: int
    """Channels of the UNet's first block."""


def check(source: Source, cache_dir: Path) -> None:
    """Refuse a model that would not load, by its small files and the headers of its weights.

    Raises:
        ModelError: with the reason and the cure.
        FolderUnusable: the service's user may not read it.

    """
    if source.path is None:
        raise catalog.unfinished(source.id, cache_dir)
    if source.single_file:
        weights.header(source.path)
        single_file_config(source.path, cache_dir, single_file(source.path))
    else:
        for path in weights.read_files(source, half=False):
            weights.header(path)
        folder_family(source.path)


def folder_family(folder: Path) -> str:
    """Return ``sd`` or ``sdxl`` of a folder in diffusers layout, after checking its parts.

    Raises:
        ModelError: it is another kind of model, or a part is missing or damaged.

    """
    family = index_family(folder)
    index = catalog.index(folder)
    for part, classes in PARTS.items():
        if part == "text_encoder_2" and family == "sd":
            continue
        _demand_part(folder, part, index.get(part), classes)
        tokenizer = part.replace("text_encoder", "tokenizer")
        if tokenizer != part and not _has_tokenizer(folder / tokenizer):
            raise ModelError(f"{folder / tokenizer} has no vocabulary. Fetch the model again.")
    channels = read_config(folder / "unet" / "config.json").get("in_channels", 4)
    vae_channels = read_config(folder / "vae" / "config.json").get("latent_channels", 4)
    if channels != vae_channels:
        raise ModelUnsuitable(
            f"{folder}: the UNet takes {channels} channels and the VAE gives {vae_channels}; it "
            f"is an inpainting or editing model, or its parts do not belong together. {SUPPORTED}"
        )
    noise = str(read_config(folder / "scheduler" / "scheduler_config.json").get("_class_name", ""))
    if noise.startswith(FOREIGN_NOISE):
        raise ModelUnsuitable(f"{folder} needs {noise}, which is not supported. {SUPPORTED}")
    return family


def index_family(folder: Path) -> str:
    """Return ``sd`` or ``sdxl`` by ``model_index.json`` alone.

    Raises:
        ModelError: it is another kind of model.

    """
    kind = catalog.pipeline_class(folder)
    if kind not in FAMILIES:
        raise ModelUnsuitable(f"{folder} is a {kind}. {SUPPORTED}")
    return FAMILIES[kind]


def variant(folder: Path, *, half: bool) -> str | None:
    """Return ``fp16`` if such weights are wanted and there, or are the only ones; else None."""
    names = [path.name for path in (folder / "unet").glob("*.safetensors")]
    halves = [name for name in names if ".fp16." in name]
    return "fp16" if halves and (half or len(halves) == len(names)) else None


def single_file(path: Path) -> SingleFile:
    """Tell what kind of model a single-file checkpoint holds.

    Raises:
        ModelError: it is damaged, another kind of model, or only a part of one.

    """
    shapes = _shapes(path)
    widths = [
        shape[-1]
        for key, shape in shapes.items()
        if key.startswith(UNET_PREFIX) and key.endswith(".attn2.to_k.weight")
    ]
    first = shapes.get(UNET_PREFIX + "input_blocks.0.0.weight")
    prefixes = {key.split(".", 1)[0] for key in shapes}
    if not widths or first is None or "first_stage_model" not in prefixes:
        raise ModelUnsuitable(
            f"{path} is no complete Stable Diffusion checkpoint: it lacks a UNet with "
            f"cross-attention or a VAE (a LoRA, a VAE or another model?). {SUPPORTED}"
        )
    if first[1] != shapes.get("first_stage_model.post_quant_conv.weight", first)[1]:
        raise ModelUnsuitable(f"{path} is an inpainting or editing model. {SUPPORTED}")
    if any(key.startswith("conditioner.embedders.1.") for key in shapes):
        family = "sdxl"
    elif "cond_stage_model" in prefixes:
        family = "sd"
    else:
        raise ModelUnsuitable(
            f"{path} has no text encoder of Stable Diffusion 1.x, 2.x or XL. {SUPPORTED}"
        )
    return SingleFile(family=family, text_width=widths[0], unet_width=first[0])


def single_file_config(path: Path, cache_dir: Path, kind: SingleFile) -> Path:
    """Return a folder with the configuration and tokenizer that a single file lacks.

    It may lie beside the file, under the file's name without its ending, or belong to any
    model of the same kind in the cache; its weights are not needed.

    Raises:
        ModelError: there is none, or the one beside the file is damaged.

    """
    reference = REFERENCE_MODELS.get((kind.family, kind.text_width))
    beside = path.with_suffix("")
    if (beside / catalog.INDEX).is_file() and _fits(beside, kind):
        return beside
    for folder in catalog.configurations(cache_dir, first=reference):
        with suppress(ModelError, OSError):  # Another model's trouble is none of this one.
            if _fits(folder, kind):
                return folder
    fetch = (
        f"hf download {reference} --include '*.json' --include '*.txt' --cache-dir {cache_dir}"
        if reference
        else f"put the model's *.json and tokenizer files into {beside}"
    )
    raise ModelUnsuitable(
        f"{path} holds weights only; its configuration is not here. Cure: {fetch}"
    )


def check_weights(path: Path) -> None:
    """Read a safetensors header, which also compares the file's length with what it promises.

    Raises:
        ModelError: the file is cut short or is no safetensors file.

    """
    _shapes(path)


def demand_weights(folder: Path, wanted: Iterable[str]) -> None:
    """Compare a text encoder's weights with what its files hold.

    transformers fills what is missing with random numbers and says so in its log only.

    Raises:
        ModelError: a weight is missing.

    """
    # Newer transformers dropped this prefix from the names in memory, not from the files.
    held = {
        key.removeprefix("text_model.")
        for path in folder.glob("*.safetensors")
        for key in _shapes(path)
    }
    missing = [key for key in wanted if key.removeprefix("text_model.") not in held]
    if missing:
        raise ModelError(
            f"{folder} lacks {len(missing)} weights, {missing[0]} among them. "
            "Fetch the model again."
        )


def read_config(path: Path) -> dict[str, Any]:
    """Read a part's JSON configuration.

    Raises:
        ModelError: it is missing or damaged.

    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error.strerror}). Fetch it again.") from error
    except ValueError as error:
        raise ModelError(f"{path} is damaged ({error}). Fetch the model again.") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path} is no configuration. Fetch the model again.")
    return content


def _demand_part(folder: Path, part: str, named: object, classes: set[str]) -> None:
    name = named[1] if isinstance(named, list) and len(named) > 1 else None
    if name not in classes:
        raise ModelUnsuitable(
            f"{folder}: its {part} is {name or 'missing'}, not {' or '.join(sorted(classes))}. "
            f"{SUPPORTED}"
        )
    found = sorted((folder / part).glob("*.safetensors"))
    if not found:
        pickled = any(path.suffix in catalog.PICKLES for path in (folder / part).glob("*"))
        cause = "only pickled weights, which can run code when read" if pickled else "no weights"
        raise ModelError(f"{folder / part} has {cause}. Fetch the model's .safetensors files.")
    for path in found:
        check_weights(path)


def _has_tokenizer(folder: Path) -> bool:
    # Without its files transformers makes a tokenizer that knows no word, and says nothing.
    return any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json"))


def _shapes(path: Path) -> Mapping[str, tuple[int, ...]]:
    catalog.demand_readable(path)  # safetensors says of such a file that it is not there.
    try:
        with safe_open(path, framework="np") as opened:
            return {key: tuple(opened.get_slice(key).get_shape()) for key in opened.keys()}  # noqa: SIM118 - safe_open is no mapping
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"{path} is cut short or damaged ({error}). Fetch the model again."
        ) from error


def _fits(folder: Path, kind: SingleFile) -> bool:
    index = catalog.index(folder)
    path = folder / "unet" / "config.json"
    if FAMILIES.get(str(index["_class_name"])) != kind.family or not path.is_file():
        return False
    unet = read_config(path)
    return (
        unet.get("cross_attention_dim") == kind.text_width
        and _first(unet.get("block_out_channels")) == kind.unet_width
        and unet.get("time_cond_proj_dim") is None
        and _has_tokenizer(folder / "tokenizer")
        and index.get("vae") == ["diffusers", "AutoencoderKL"]
    )


def _first(values: object) -> object:
    return values[0] if isinstance(values, list) and values else None
