"""The parts of a model in diffusers layout: what each is, and whether they can work together."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from service.errors import ModelError, ModelUnsuitable
from service.models import files, weights

SUPPORTED: Final = (
    "Supported are Stable Diffusion 1.x, 2.x and XL models, for text and for inpainting."
)
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

TOKENIZERS: Final = frozenset(
    {"CLIPTokenizer", "CLIPTokenizerFast", "PreTrainedTokenizerFast", "TokenizersBackend"}
)
"""Classes of transformers that a tokenizer may have. AutoTokenizer would import a model's code."""

TOKENIZER_FILES: Final = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
"""Small files of a tokenizer that are read where they are there."""

LIBRARIES: Final = frozenset({"diffusers", "transformers", "stable_diffusion"})
TIME_IDS: Final = 6
"""Numbers of SDXL's size conditioning."""

COLOURS: Final = 3
MASK: Final = 1
"""Channels of a mask, which an inpainting model takes in front of the masked image's latents."""

TEXT_PROJECTION: Final = "text_proj"
"""A linear layer of the UNet that widens the text embeddings; the default with a width."""


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
        configs[part] = files.read_json(folder / part / "config.json", bom=False)
        _demand_same_class(folder / part, configs[part].get("_class_name"), classes, index[part])
        demand_weights(folder / part, half=half)
        if part.startswith("text_encoder"):
            name = tokenizer_of(part)
            demand_tokenizer_class(folder, name, index.get(name))
            demand_vocabulary(folder / name, configs[part], part)
    demand_fit(configs, family, str(folder))
    for part, config in configs.items():
        if index[part][1] != "AutoencoderTiny":
            _demand_shape(folder / part, part, config, half=half)
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
    try:
        largest = largest_token(folder)
    except OSError as error:
        raise files.unreadable(error) from error
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
    for name in TOKENIZER_FILES:
        if (folder / name).is_file():
            files.read_json(folder / name, bom=False)
    whole = folder / "tokenizer.json"
    if whole.is_file():
        content = files.read_json(whole, bom=False)
        model = content.get("model")
        vocabulary = model.get("vocab", {}) if isinstance(model, dict) else {}
        more = content.get("added_tokens")
        added = more if isinstance(more, list) else []
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
    if min(found) < 0:
        raise files.damage(folder, "it has a negative token number")
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


def _demand_same_class(
    folder: Path, said: object, classes: frozenset[str], named: Sequence[object]
) -> None:
    """Compare the class in a part's own configuration with that in the index."""
    if said not in (None, named[1]):
        raise ModelUnsuitable(
            f"{folder} is a {said} by its config.json and a {named[1]} by model_index.json. Take "
            f"both from the same model; supported are {' and '.join(sorted(classes))}."
        )


def demand_tokenizer_class(folder: Path, part: str, named: object) -> None:
    """Refuse a tokenizer that is code of the model's, or none.

    Raises:
        ModelUnsuitable: with what the index names.

    """
    library, name = _named(named)
    if library == "transformers" and name in TOKENIZERS:
        return
    if library is not None and library not in LIBRARIES:
        raise ModelUnsuitable(
            f"{folder}: its {part} is {name} of {library}, code that comes with the model, and "
            "such code is never run. Use a model with a tokenizer of transformers."
        )
    raise ModelUnsuitable(
        f"{folder}: model_index.json names {f'{name} as its' if name else 'no'} {part}. It must "
        f"be one of {', '.join(sorted(TOKENIZERS))}: use a model with such a tokenizer."
    )


def _named(entry: object) -> tuple[str | None, str | None]:
    """Return library and class of an entry in ``model_index.json``."""
    if not isinstance(entry, list) or len(entry) < 2:  # noqa: PLR2004 - a pair
        return None, None
    library, name = entry[0], entry[1]
    return (str(library) if library else None), (str(name) if name else None)


def demand_weights(folder: Path, *, half: bool) -> None:
    """Look at the weights of a part that loading reads.

    Raises:
        ModelError: there are none, or not all of them, or they are damaged.
        ModelUnsuitable: they are pickled, named otherwise, or no floating-point numbers.

    """
    if read := weights.part_files(folder, half):
        for path in read:
            for name, row in weights.header(path).items():
                if row["dtype"] not in weights.FLOATS and not name.endswith("position_ids"):
                    raise ModelUnsuitable(
                        f"{path} has weights in {row['dtype']} ({name}), which is not read. Use "
                        "the model in float16 or float32."
                    )
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
    name = f"{weights.STEMS.get(folder.name, 'model')}{files.SUFFIX}"
    if name in others:
        stale = next((each for each in names if weights.INDICES in each), "its index")
        raise ModelError(
            f"{folder} has {name} next to {stale}, which names shards that are not there. Remove "
            f"{folder / stale}, or copy the shards."
        )
    if others:
        raise ModelUnsuitable(
            f"{folder} has weights under a name that is not read ({others[0]}). Name them {name}."
        )
    raise ModelError(f"{folder} has no weights. {files.fetch_again(folder / 'config.json')}")


def _demand_shape(folder: Path, part: str, config: Mapping[str, Any], *, half: bool) -> None:
    """Compare one tensor of a part with its configuration: they may be of different models.

    Raises:
        ModelUnsuitable: they are, or it is another part's file.

    """
    own = text_config(config)
    widths = config.get("block_out_channels")
    first = widths[0] if isinstance(widths, list) and widths else None
    ends, wanted = {
        "unet": ("conv_in.weight", (first, config.get("in_channels"))),
        "vae": ("decoder.conv_out.bias", (config.get("out_channels"),)),
    }.get(part, ("token_embedding.weight", (own.get("vocab_size"), own.get("hidden_size"))))
    rows = {
        name: row
        for path in weights.part_files(folder, half)
        for name, row in weights.header(path).items()
    }
    shapes = [row["shape"] for name, row in rows.items() if name.endswith(ends)]
    if not shapes:
        raise ModelUnsuitable(
            f"the weights in {folder} are not those of a {part}: there is no {ends}. Take "
            "weights and config.json from the same model."
        )
    for want, has in zip(wanted, shapes[0], strict=False):
        if want is not None and want != has:
            raise ModelUnsuitable(
                f"the weights in {folder} have other shapes than its config.json says ({ends}: "
                f"{has}, not {want}). Take both from the same model."
            )


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
    ):
        if unet.get(key) not in (None, TEXT_PROJECTION):
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


def _quantised(configs: Mapping[str, Mapping[str, Any]], _family: str) -> str:
    for part, config in configs.items():
        how = config.get("quantization_config")
        if how is not None:
            method = how.get("quant_method") if isinstance(how, dict) else how
            return f"the {part} is quantised ({method}), which is not read. Use it in float16."
    return ""


def _scaling(configs: Mapping[str, Mapping[str, Any]], _family: str) -> str:
    factor = configs["vae"].get("scaling_factor", 1.0)
    if type(factor) in {int, float} and factor > 0:
        return ""
    return f"the scaling_factor of the VAE must be a number above 0, and is {factor!r}."


def for_inpainting(taken: int, latent: int) -> bool:
    """Return whether a UNet with so many input channels takes mask and masked image, too."""
    return taken == 2 * latent + MASK


def _channels(configs: Mapping[str, Mapping[str, Any]], _family: str) -> str:
    unet, vae = configs["unet"], configs["vae"]
    taken, given = _whole(unet.get("in_channels"), 4), _whole(unet.get("out_channels"), 4)
    latent = _whole(vae.get("latent_channels"), 4)
    if taken != latent and not for_inpainting(taken, latent):
        return (
            f"the UNet takes {taken} channels and the VAE gives {latent}; it is an editing or "
            "depth model, or its parts do not belong together."
        )
    if given != latent:
        return (
            f"the UNet takes {taken} channels and gives {given}, and the VAE decodes {latent}; "
            "models that predict a variance, too, are not supported."
        )
    colours = _whole(vae.get("out_channels"), COLOURS)
    return "" if colours == COLOURS else f"the VAE gives {colours} colours, and an image has 3."


def _widths(configs: Mapping[str, Mapping[str, Any]], family: str) -> str:
    encoders = [part for part in CLASSES[family] if part.startswith("text_encoder")]
    each = {part: _whole(text_config(configs[part]).get("hidden_size"), 512) for part in encoders}
    unet = configs["unet"]
    # A UNet with a projection of its own takes embeddings of the projection's width.
    key = "cross_attention_dim" if unet.get("encoder_hid_dim") is None else "encoder_hid_dim"
    wanted = unet.get(key, 1280)
    widths = wanted if isinstance(wanted, list | tuple) else (wanted,)
    if set(widths) == {sum(each.values())}:
        return ""
    given = " + ".join(
        f"{width}" if len(each) == 1 else f"{width} ({part})" for part, width in each.items()
    )
    return (
        f"the UNet takes text embeddings {_joined(widths)} wide ({key}), and the "
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


_CHECKS: Final = (_quantised, _kind, _scaling, _channels, _widths, _pooled)
