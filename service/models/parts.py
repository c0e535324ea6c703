"""The parts of a model in diffusers layout: what each is, and whether they can work together."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from service.errors import ModelError, ModelUnsuitable
from service.models import files, weights

SUPPORTED: Final = "Supported are Stable Diffusion 1.x, 2.x and XL text-to-image models."
CLASSES: Final[Mapping[str, Mapping[str, frozenset[str]]]] = {
    "sd": {
        "unet": frozenset({"UNet2DConditionModel"}),
        "vae": frozenset({"AutoencoderKL", "AutoencoderTiny"}),
        "text_encoder": frozenset({"CLIPTextModel"}),
    },
    "sdxl": {
        "unet": frozenset({"UNet2DConditionModel"}),
        "vae": frozenset({"AutoencoderKL", "AutoencoderTiny"}),
        "text_encoder": frozenset({"CLIPTextModel", "CLIPTextModelWithProjection"}),
        "text_encoder_2": frozenset({"CLIPTextModelWithProjection"}),
    },
}
"""By family and part with weights, the classes that it may have; no other is imported."""

TOKENIZER: Final = re.compile(r"\w+Tokenizer(Fast)?")
LIBRARIES: Final = frozenset({"diffusers", "transformers", "stable_diffusion"})
TIME_IDS: Final = 6
"""Numbers of SDXL's size conditioning."""

COLOURS: Final = 3


def tokenizer_of(part: str) -> str:
    """Return the folder of the tokenizer that a text encoder's texts come from."""
    return part.replace("text_encoder", "tokenizer")


def read(folder: Path, family: str, index: Mapping[str, Any], *, half: bool) -> dict[str, Any]:
    """Return each part's configuration, after a look at its class, weights and tokenizer.

    Raises:
        ModelUnsuitable: a part is of another kind, or the parts cannot work together.
        ModelError: a part is missing or damaged.

    """
    configs: dict[str, Any] = {}
    for part, classes in CLASSES[family].items():
        _demand_class(folder, part, index.get(part), classes)
        configs[part] = files.read_json(folder / part / "config.json")
        _demand_weights(folder / part, half=half)
        if part.startswith("text_encoder"):
            name = tokenizer_of(part)
            _demand_tokenizer_class(folder, name, index.get(name))
            demand_vocabulary(folder / name, configs[part], part)
    demand_fit(configs, family, str(folder))
    return configs


def demand_fit(configs: Mapping[str, Mapping[str, Any]], family: str, owner: str) -> None:
    """Compare what the parts' configurations say of each other.

    Raises:
        ModelUnsuitable: naming the two parts that cannot work together.

    """
    problem = next(filter(None, (check(configs, family) for check in _CHECKS)), "")
    if problem:
        raise ModelUnsuitable(f"{owner}: {problem} {SUPPORTED}")


def demand_vocabulary(folder: Path, encoder: Mapping[str, Any], part: str) -> None:
    """Compare a tokenizer's largest token with the rows of its encoder's table.

    Raises:
        ModelError: the tokenizer lacks a file; libraries would make one that knows no word.
        ModelUnsuitable: it knows more tokens than its encoder.

    """
    rows = _whole(text_config(encoder).get("vocab_size"), 49408)
    largest = largest_token(folder)
    if largest >= rows:
        raise ModelUnsuitable(
            f"{folder} has tokens up to {largest}, and the {part} knows {rows}: they belong to "
            "different models. Take both from the same one."
        )


def largest_token(folder: Path) -> int:
    """Return the largest number that a tokenizer turns a text into.

    Raises:
        ModelError: one of its files is missing or damaged.

    """
    whole = folder / "tokenizer.json"
    if whole.is_file():
        content = files.read_json(whole)
        model = content.get("model")
        vocabulary = model.get("vocab", {}) if isinstance(model, dict) else {}
        added = content.get("added_tokens") or []
        numbers = [token.get("id") for token in added if isinstance(token, dict)]
    else:
        vocabulary, numbers = files.read_json(_there(folder, "vocab.json")), []
        _there(folder, "merges.txt")
        if (folder / "added_tokens.json").is_file():
            numbers = list(files.read_json(folder / "added_tokens.json").values())
    known = vocabulary.values() if isinstance(vocabulary, dict) else ()
    found = [number for number in (*known, *numbers) if type(number) is int]
    if not found:
        raise ModelError(f"{folder} has an empty vocabulary. {files.fetch_again(folder)}")
    return max(found)


def _there(folder: Path, name: str) -> Path:
    path = folder / name
    if path.is_file():
        return path
    if not folder.is_dir():
        raise ModelError(f"{folder} is missing. {files.fetch_again(folder)}")
    raise ModelError(
        f"{folder} lacks {name}: it needs tokenizer.json, or vocab.json and merges.txt. "
        f"{files.fetch_again(path)}"
    )


def _demand_class(folder: Path, part: str, named: object, classes: frozenset[str]) -> None:
    library, name = _named(named)
    if name in classes:
        return
    if library is not None and library not in LIBRARIES:
        raise ModelUnsuitable(
            f"{folder}: its {part} is {name} of {library}, code that comes with the model, and "
            f"such code is never run. Use a model whose {part} is {' or '.join(sorted(classes))}."
        )
    what = f"its {part} is {name}, not" if name else f"model_index.json names no {part}; needed is"
    raise ModelUnsuitable(f"{folder}: {what} {' or '.join(sorted(classes))}. {SUPPORTED}")


def _demand_tokenizer_class(folder: Path, part: str, named: object) -> None:
    library, name = _named(named)
    if library == "transformers" and name is not None and TOKENIZER.fullmatch(name):
        return
    if library is not None and library not in LIBRARIES:
        raise ModelUnsuitable(
            f"{folder}: its {part} is {name} of {library}, code that comes with the model, and "
            "such code is never run. Use a model with a tokenizer of transformers."
        )
    raise ModelUnsuitable(
        f"{folder}: model_index.json names {f'{name} as' if name else 'no'} {part}, and texts "
        "cannot be read without one. Use a model with a CLIPTokenizer."
    )


def _named(entry: object) -> tuple[str | None, str | None]:
    """Return library and class of an entry in ``model_index.json``."""
    if not isinstance(entry, list) or len(entry) < 2:  # noqa: PLR2004 - a pair
        return None, None
    library, name = entry[0], entry[1]
    return (str(library) if library else None), (str(name) if name else None)


def _demand_weights(folder: Path, *, half: bool) -> None:
    if read := weights.part_files(folder, half):
        for path in read:
            weights.header(path)
        return
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    shards = [name for name in names if (found := weights.FILE.fullmatch(name)) and found["shards"]]
    if shards:
        raise ModelError(
            f"{folder} lacks some of its shards or their index: there are {', '.join(shards[:3])}. "
            f"{files.fetch_again(folder / shards[0])}"
        )
    if pickled := [name for name in names if Path(name).suffix in files.PICKLES]:
        raise ModelUnsuitable(
            f"{folder} has only pickled weights ({pickled[0]}), which can run code when read. "
            "Fetch the model's .safetensors files."
        )
    others = [name for name in names if name.endswith(files.SUFFIX)]
    if others:
        raise ModelUnsuitable(
            f"{folder} has weights under a name that is not read ({others[0]}). Name them "
            "diffusion_pytorch_model.safetensors, or model.safetensors for a text encoder."
        )
    raise ModelError(f"{folder} has no weights. {files.fetch_again(folder / 'config.json')}")


def text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the part of a configuration that is the text encoder's own."""
    inner = config.get("text_config")
    return inner if isinstance(inner, dict) else config


def _whole(value: object, default: int) -> int:
    return value if type(value) is int else default


def _kind(configs: Mapping[str, Mapping[str, Any]], family: str) -> str:
    unet = configs["unet"]
    for key, what in (
        ("class_embed_type", "class labels"),
        ("num_class_embeds", "class labels"),
        ("encoder_hid_dim_type", "projected embeddings"),
        ("encoder_hid_dim", "projected embeddings"),
    ):
        if unet.get(key) is not None:
            return (
                f"the UNet wants {what} ({key} is {unet[key]!r}), which the text encoder does not "
                "give."
            )
    added = unet.get("addition_embed_type")
    if family == "sd" and added is not None:
        return (
            f"the UNet wants more than a text encoder gives (addition_embed_type is {added!r}, as "
            "in an XL model), and model_index.json names StableDiffusionPipeline with one "
            "text_encoder."
        )
    if family == "sdxl" and added != "text_time":
        return (
            f"the UNet is not one of an XL model (addition_embed_type is {added!r}, not "
            "'text_time'), and model_index.json names StableDiffusionXLPipeline with a "
            "text_encoder_2."
        )
    return ""


def _channels(configs: Mapping[str, Mapping[str, Any]], _family: str) -> str:
    unet, vae = configs["unet"], configs["vae"]
    taken, given = _whole(unet.get("in_channels"), 4), _whole(unet.get("out_channels"), 4)
    latent = _whole(vae.get("latent_channels"), 4)
    if taken != latent:
        return (
            f"the UNet takes {taken} channels and the VAE gives {latent}; it is an inpainting or "
            "editing model, or its parts do not belong together."
        )
    if given != taken:
        return (
            f"the UNet takes {taken} channels and gives {given}, and the VAE decodes {latent}; "
            "models that predict a variance, too, are not supported."
        )
    colours = _whole(vae.get("out_channels"), COLOURS)
    return "" if colours == COLOURS else f"the VAE gives {colours} colours, and an image has 3."


def _widths(configs: Mapping[str, Mapping[str, Any]], family: str) -> str:
    encoders = [part for part in CLASSES[family] if part.startswith("text_encoder")]
    each = {part: _whole(text_config(configs[part]).get("hidden_size"), 512) for part in encoders}
    wanted = configs["unet"].get("cross_attention_dim", 1280)
    widths = wanted if isinstance(wanted, list | tuple) else (wanted,)
    if set(widths) == {sum(each.values())}:
        return ""
    given = " + ".join(f"{width} ({part})" for part, width in each.items())
    return (
        f"the UNet takes text embeddings {_joined(widths)} wide (cross_attention_dim), and the "
        f"text_encoder gives {given}: they belong to different models."
    )


def _pooled(configs: Mapping[str, Mapping[str, Any]], family: str) -> str:
    if family != "sdxl":
        return ""
    unet = configs["unet"]
    projected = _whole(text_config(configs["text_encoder_2"]).get("projection_dim"), 512)
    times = TIME_IDS * _whole(unet.get("addition_time_embed_dim"), 0)
    wanted = _whole(unet.get("projection_class_embeddings_input_dim"), 0)
    if wanted == times + projected:
        return ""
    return (
        f"the UNet takes {wanted} added numbers (projection_class_embeddings_input_dim), and the "
        f"sizes with text_encoder_2 give {times} + {projected}: they belong to different models."
    )


def _joined(values: Sequence[object]) -> str:
    return " or ".join(dict.fromkeys(map(str, values)))


_CHECKS: Final = (_kind, _channels, _widths, _pooled)
