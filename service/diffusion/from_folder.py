"""The parts of a folder in diffusers layout, each read by the library that it belongs to."""

import re
from pathlib import Path
from typing import Any, Final

import torch
import transformers
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker

from service.diffusion.memory.usage import is_out_of_memory
from service.errors import ModelError, ModelUnsuitable
from service.models import files, weights
from service.models.layout import Layout
from service.models.parts import CLASSES, TOKENIZERS, demand_weights, tokenizer_of

READERS: Final[dict[str, Any]] = {
    "UNet2DConditionModel": UNet2DConditionModel,
    "AutoencoderKL": AutoencoderKL,
    "AutoencoderTiny": AutoencoderTiny,
    "CLIPTextModel": transformers.CLIPTextModel,
    "CLIPTextModelWithProjection": transformers.CLIPTextModelWithProjection,
}
"""By the class that ``model_index.json`` names; ``layout`` lets no other through."""

NO_CHECKER: Final[dict[str, Any]] = {
    "safety_checker": None,
    "feature_extractor": None,
    "requires_safety_checker": False,
}
"""What a pipeline of SD is told that has none."""

LONGEST_CAUSE: Final = 200
"""Characters of another library's error that are shown."""

SHAPES: Final = re.compile(r"size mismatch|mismatched_sizes|shape|expected.*got", re.IGNORECASE)


def read_parts(
    folder: Path, layout: Layout, *, dtype: torch.dtype, safety_checker: bool
) -> dict[str, Any]:
    """Return the arguments of the pipeline: networks in ``dtype`` on the CPU, and tokenizers.

    Raises:
        ModelError: a part is damaged, or a safety checker is asked for that is not there.

    """
    half = dtype == torch.float16
    found: dict[str, Any] = {}
    for part in CLASSES[layout.family]:
        found[part] = network(folder / part, READERS[layout.index[part][1]], dtype, half=half)
        if part.startswith("text_encoder"):
            name = tokenizer_of(part)
            found[name] = read_tokenizer(folder / name, str(layout.index[name][1]))
            demand_known(folder / name, found[name], found[part], part)
    if layout.family == "sd":
        found |= _checker(folder, layout, dtype, half=half) if safety_checker else NO_CHECKER
    return found


def read_tokenizer(folder: Path, name: str) -> Any:
    """Return the tokenizer of a folder, of a class of transformers.

    Raises:
        ModelUnsuitable: transformers has no such class.

    """
    kind = getattr(transformers, name, None) if name in TOKENIZERS else None
    if kind is None:
        raise ModelUnsuitable(
            f"{folder} is a {name}, which transformers {transformers.__version__} does not have. "
            "Use a model with a CLIPTokenizer."
        )
    try:
        return kind.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # The tokenizers library raises nothing narrower.
        raise ModelError(
            f"{folder} cannot be read as a {name} ({_line(error)}). {files.fetch_again(folder)}"
        ) from error


def demand_known(folder: Path, tokenizer: Any, network: Any, part: str) -> None:
    """Compare a tokenizer as it was read with its encoder: settings may add tokens.

    Raises:
        ModelUnsuitable: it has tokens that the encoder does not know, or none to fill up with.

    """
    rows = network.get_input_embeddings().num_embeddings
    largest = max(tokenizer.get_vocab().values())
    if largest >= rows:
        raise ModelUnsuitable(
            f"{folder} has tokens up to {largest}, and the {part} knows {rows}: they belong to "
            "different models, or tokenizer_config.json adds tokens. Take both from the same one."
        )
    if tokenizer.pad_token_id is None:
        raise ModelUnsuitable(
            f"{folder} has no pad_token, which short texts are filled up with. Name one in its "
            "tokenizer_config.json."
        )


def network(folder: Path, kind: Any, dtype: torch.dtype, *, half: bool) -> Any:
    """Return the network of a part's folder, on the CPU.

    Raises:
        ModelError: its weights are damaged, or not those of its configuration.

    """
    names = [path.name for path in folder.iterdir()]
    chosen = weights.choose(names, half=half, part=folder.name)
    if chosen is None:  # pragma: no cover - it was looked at before
        raise ModelError(f"{folder} has no weights.")
    # Both libraries make the asked number format torch's default while they build a network, and
    # that is the process's: rows that another thread draws meanwhile would compute in it.
    usual = torch.get_default_dtype()
    kept = usual if issubclass(kind, transformers.PreTrainedModel) else None
    try:
        made = kind.from_pretrained(
            folder,
            variant=chosen.variant,
            dtype=dtype if dtype == usual else kept,
            use_safetensors=True,
            local_files_only=True,
        )
    except Exception as error:  # The libraries raise about ten classes.
        if is_out_of_memory(error):
            raise
        if not SHAPES.search(str(error)):
            raise ModelUnsuitable(
                f"{folder} cannot be built from its config.json ({type(error).__name__}: "
                f"{_line(error)}). Take config.json and weights from the model's publisher."
            ) from error
        raise ModelUnsuitable(
            f"the weights in {folder} have other shapes than its config.json says "
            f"({_line(error)}). Take both from the same model."
        ) from error
    _demand_all(folder, made, weights.part_files(folder, half))
    return made.to(dtype)


def _demand_all(folder: Path, made: Any, held_in: list[Path]) -> None:
    """Find weights that a network's files do not hold.

    diffusers leaves them without memory; transformers fills them with random numbers, and says
    so in its log only.
    """
    if isinstance(made, transformers.PreTrainedModel):
        # Newer transformers dropped this prefix from the names in memory, not from the files.
        held = {key.removeprefix("text_model.") for path in held_in for key in weights.header(path)}
        wanted = [key.removeprefix("text_model.") for key, _ in made.named_parameters()]
        missing = [key for key in wanted if key not in held]
    else:
        missing = [key for key, weight in made.named_parameters() if weight.is_meta]
    if missing:
        raise ModelError(
            f"{folder} lacks {len(missing)} weights that its config.json asks for, {missing[0]} "
            f"among them. {files.fetch_again(held_in[0])}"
        )


def _checker(folder: Path, layout: Layout, dtype: torch.dtype, *, half: bool) -> dict[str, Any]:
    for part in ("safety_checker", "feature_extractor"):
        named = layout.index.get(part)
        there = isinstance(named, list) and named[-1:] != [None] and named
        if not there:
            raise ModelUnsuitable(
                f"SAFETY_CHECKER=true, but {folder} has no {part}. Use a model that has one, or "
                "set SAFETY_CHECKER=false."
            )
        if not (folder / part).is_dir():
            raise ModelError(
                f"SAFETY_CHECKER=true, but {folder / part} is missing. "
                f"{files.fetch_again(folder / part)} Or set SAFETY_CHECKER=false."
            )
    settings = folder / "feature_extractor" / "preprocessor_config.json"
    try:
        files.read_json(settings, bom=False)
        files.read_json(folder / "safety_checker" / "config.json", bom=False)
        demand_weights(folder / "safety_checker", half=half)
    except ModelError as error:
        raise type(error)(f"{error.detail} Or set SAFETY_CHECKER=false.") from error
    return {
        "safety_checker": network(
            folder / "safety_checker", StableDiffusionSafetyChecker, dtype, half=half
        ),
        "feature_extractor": transformers.CLIPImageProcessor.from_pretrained(
            settings.parent, local_files_only=True
        ),
        "requires_safety_checker": True,
    }


def _line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= LONGEST_CAUSE else f"{text[:LONGEST_CAUSE]}…"
