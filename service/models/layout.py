"""What loading a model needs to know of it, found in its small files before torch is imported."""

import os
import shlex
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from service.errors import FolderUnusable, ModelError, ModelUnsuitable
from service.models import catalog, commands, files, parts, schedule, single_file, vocabulary
from service.models.figures import FIGURES, Figures
from service.models.matching import mismatch
from service.models.parts import SUPPORTED
from service.models.schedule import Schedule
from service.models.single_file import VELOCITY, ZERO_SNR, SingleFile
from service.models.source import Source
from service.models.vocabulary import Vocabulary

FAMILIES: Final = {
    "StableDiffusionPipeline": "sd",
    "LatentConsistencyModelPipeline": "sd",
    "StableDiffusionInpaintPipeline": "sd",
    "StableDiffusionXLPipeline": "sdxl",
    "StableDiffusionXLInpaintPipeline": "sdxl",
}
"""Family by the pipeline class that a folder names; a consistency model has SD's parts."""

SHOWN: Final = 3
AUTO: Final = "auto"
SETTINGS: Final = ("force_zeros_for_empty_prompt",)
"""What ``model_index.json`` may say, next to the parts, that changes the image."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A model as it will be loaded."""

    family: str
    """``sd`` (1.x and 2.x) or ``sdxl``."""
    configs: Mapping[str, Mapping[str, Any]]
    """Configuration by part."""
    schedule: Schedule
    configuration: str
    """Where the configurations come from, for the log and ``/health``."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What else the pipeline is told."""
    index: Mapping[str, Any] = field(default_factory=dict)
    """``model_index.json``; empty where the service brings the configuration."""
    tokenizers: Path | None = None
    """Folder that holds the tokenizers' folders."""
    vocabulary: Vocabulary | None = None
    """What the tokenizers are made of where no folder holds them."""
    padding: Mapping[str, str] = field(default_factory=dict)
    file: SingleFile | None = None

    @property
    def inpainting(self) -> bool:
        """Whether its UNet takes a mask and a masked image, too."""
        taken, given = (self.configs["unet"].get(f"{end}_channels", 4) for end in ("in", "out"))
        return bool(taken != given)


def read(
    source: Source, cache_dir: Path, *, prediction_type: str = AUTO, half: bool = False
) -> Layout:
    """Return how a model that is here will be loaded; ``prediction_type`` is the setting.

    Raises:
        ModelError: it cannot be loaded, with the cure.

    """
    path = source.path
    if path is None:
        raise ModelError(f"{source.id} is not here yet.")
    if source.single_file:
        return read_file(path, cache_dir, prediction_type=prediction_type)
    return read_folder(path, prediction_type=prediction_type, half=half)


def check(source: Source, cache_dir: Path) -> None:
    """Refuse what would not load.

    Raises:
        ModelError: with the cause and the cure.

    """
    read(source, cache_dir)


def index_family(folder: Path) -> str:
    """Return ``sd`` or ``sdxl`` by ``model_index.json`` alone.

    Raises:
        ModelError: it is another kind of model.

    """
    named = catalog.index(folder)["_class_name"]
    if isinstance(named, list):
        raise ModelUnsuitable(
            f"{folder} is drawn by a pipeline of its own ({'.'.join(map(str, named))}), code that "
            f"comes with the model, and such code is never run. {SUPPORTED}"
        )
    if named not in FAMILIES:
        raise ModelUnsuitable(f"{folder} is a {named}. {SUPPORTED}")
    return FAMILIES[str(named)]


def read_folder(folder: Path, *, prediction_type: str = AUTO, half: bool = False) -> Layout:
    """Return how a folder in diffusers layout will be loaded.

    Raises:
        ModelError: it is another kind of model, or a part is missing or damaged.

    """
    family, index = index_family(folder), catalog.index(folder)
    configs = parts.read(folder, family, index, half=half)
    return Layout(
        family=family,
        configs=configs,
        schedule=_chosen(_schedule(folder, family, index), prediction_type),
        configuration=str(folder),
        settings={name: index[name] for name in SETTINGS if name in index},
        index=index,
        tokenizers=folder,
    )


def read_file(path: Path, cache_dir: Path, *, prediction_type: str = AUTO) -> Layout:
    """Return how a checkpoint in a single file will be loaded.

    Its configuration is that of the folder next to it, which has the file's name without its
    ending; of the model on the hub that its kind derives from, if that is in the cache; or the
    service's own. That of any other model is never guessed: it may have the same widths and draw
    something else.

    Raises:
        ModelError: it is damaged, another kind of model, or its configuration is not known.

    """
    file = single_file.read(path)
    next_to_it = path.with_suffix("")
    if (next_to_it / catalog.INDEX).is_file():
        found = _from_folder(file, next_to_it, "folder next to the file")
    else:
        found = _from_reference(file, cache_dir) or _brought(file, cache_dir)
    return _predicting(found, file, prediction_type)


def _schedule(folder: Path, family: str, index: Mapping[str, Any]) -> Schedule:
    path = folder / schedule.FILE
    named = index.get("scheduler")
    if isinstance(named, list) and named:
        # diffusers takes the class from here, and the file need not name one.
        schedule.demand_noise({"_class_name": named[-1]}, str(folder / catalog.INDEX))
    return schedule.read(files.read_json(path), family, str(path))


def _chosen(found: Schedule, prediction_type: str) -> Schedule:
    """Let the setting decide where the model's own files do not."""
    if prediction_type == AUTO or "prediction_type" in found.numbers:
        return found
    return found.predicting(prediction_type, "PREDICTION_TYPE")


def _predicting(found: Layout, file: SingleFile, prediction_type: str) -> Layout:
    """Decide what the UNet of a single file predicts; its weights do not tell.

    The order: a marker in the file, the folder next to it, the setting, the file's metadata, the
    model that its kind derives from.
    """
    said = found.schedule
    if VELOCITY in file.markers:
        changes: dict[str, Any] = {}
        if ZERO_SNR in file.markers:
            changes = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
        name = ", ".join(sorted(file.markers & {VELOCITY, ZERO_SNR}))
        said = said.predicting("v_prediction", f"marker in the file ({name})", **changes)
    elif _is_next_to(found, file) and "prediction_type" in said.numbers:
        pass
    elif prediction_type != AUTO:
        said = said.predicting(prediction_type, "PREDICTION_TYPE")
    elif file.prediction is not None:
        said = said.predicting(file.prediction, "metadata of the file")
    elif not _is_next_to(found, file):
        said = said.predicting(said.prediction_type, found.configuration)
    return replace(found, schedule=said)


def _is_next_to(found: Layout, file: SingleFile) -> bool:
    return found.tokenizers == file.path.with_suffix("")


def _from_folder(file: SingleFile, folder: Path, what: str) -> Layout:
    """Take the configuration from a folder in diffusers layout, whose weights are not needed.

    Raises:
        ModelError: it is damaged, or is not the file's.

    """
    family, index = index_family(folder), catalog.index(folder)
    if family != file.family:
        raise ModelUnsuitable(
            f"{folder} is the configuration of another kind of model than {file.path}: {family}, "
            f"not {file.family}. {_replace(file)}"
        )
    if index.get("vae") not in (None, ["diffusers", "AutoencoderKL"]):
        raise ModelUnsuitable(
            f"{folder} names another VAE than the AutoencoderKL in {file.path}. {_replace(file)}"
        )
    configs = {
        part: files.read_json(folder / part / "config.json") for part in parts.CLASSES[family]
    }
    if problem := mismatch(file, configs):
        raise ModelUnsuitable(
            f"{folder} is not the configuration of {file.path}: {problem}. {_replace(file)}"
        )
    parts.demand_fit(configs, family, str(folder))
    for part in file.encoders:
        name = parts.tokenizer_of(part)
        parts.demand_tokenizer_class(folder, name, index.get(name))
        parts.demand_vocabulary(folder / parts.tokenizer_of(part), configs[part], part)
    return Layout(
        family=family,
        configs=configs,
        schedule=_schedule(folder, family, index),
        configuration=f"{what} ({folder})",
        settings={name: index[name] for name in SETTINGS if name in index},
        index=index,
        tokenizers=folder,
        file=file,
    )


def put_next_to(file: SingleFile) -> str:
    """Return the cure for a file whose configuration is another model's."""
    return (
        "Put the configuration of the model that the file was made from (model_index.json, the "
        f"*/config.json, scheduler and tokenizer) into {file.path.with_suffix('')}."
    )


def _replace(file: SingleFile) -> str:
    return (
        f"Put the configuration of the model that it was made from into "
        f"{file.path.with_suffix('')}, or remove that folder."
    )


def _from_reference(file: SingleFile, cache_dir: Path) -> Layout | None:
    """Take the configuration of the model that this kind derives from, if it is here and fits."""
    figures = _figures(file)
    if figures is None:
        return None
    for name in catalog.names(figures.reference):
        for folder in _folders_of(name, cache_dir):
            try:
                return _from_folder(file, folder, f"reference model {name}")
            except (ModelError, FolderUnusable):
                continue  # Not whole, or not the one: the service has its figures, too.
    return None


def _folders_of(name: str, cache_dir: Path) -> list[Path]:
    repository = cache_dir / f"models--{name.replace('/', '--')}"
    snapshots = sorted(repository.glob("snapshots/*"))
    with suppress(OSError):
        # The revision that a pull of the name fetched, before any other.
        main = (repository / "refs" / "main").read_text(encoding="utf-8", errors="replace").strip()
        snapshots.sort(key=lambda folder: folder.name != main)
    candidates = [cache_dir / name, *snapshots]
    return [folder for folder in candidates if (folder / catalog.INDEX).is_file()]


def _brought(file: SingleFile, cache_dir: Path) -> Layout:
    """Take the service's own figures of this kind.

    Raises:
        ModelUnsuitable: it has none of this kind, or CLIP's vocabulary is not here.

    """
    figures = _figures(file)
    configs = _configs(figures, file) if figures is not None else {}
    if figures is None or mismatch(file, configs):
        raise _no_configuration(file, cache_dir)
    words = vocabulary.find(cache_dir)
    if words is None:
        pull = commands.models("pull", figures.reference, "--configuration", cache_dir=cache_dir)
        ways = "Fetch the configuration of the model that this kind derives from:"
        if install := vocabulary.install_command():
            ways = f"Install the vocabulary, or f{ways[1:]} {install} ; or:"
        raise ModelUnsuitable(
            f"{file.path} is a {figures.name} model without a tokenizer, and CLIP's vocabulary is "
            f"not here. {ways} {pull}"
        )
    return Layout(
        family=file.family,
        configs=configs,
        schedule=schedule.read(figures.schedule, file.family, figures.name),
        configuration=f"{figures.name}, brought by the service; tokenizer: {words.source}",
        settings=figures.settings,
        vocabulary=words,
        padding=figures.padding,
        file=file,
    )


def _figures(file: SingleFile) -> Figures | None:
    found = FIGURES.get((file.family, file.text_width))
    return found.for_inpainting() if found and file.input_channels != file.channels else found


def _configs(figures: Figures, file: SingleFile) -> dict[str, Mapping[str, Any]]:
    unet = {**figures.parts["unet"], "time_cond_proj_dim": file.guidance_width}
    return {**figures.parts, "unet": unet}


def _no_configuration(file: SingleFile, cache_dir: Path) -> ModelUnsuitable:
    """Name the models in the cache that it may have been made from: a person has to say so."""
    wanted = file.path.with_suffix("")
    fitting = [folder for folder in _cached(cache_dir) if _fits(file, folder)]
    cure = (
        f"Put model_index.json, the */config.json and the tokenizer of the model that it was made "
        f"from into {wanted}."
    )
    if fitting and os.path.lexists(wanted):
        cure = f"{wanted} has no {catalog.INDEX}: move it away first. {cure}"
    elif fitting:
        links = [
            shlex.join(["ln", "-s", str(folder.absolute()), str(wanted.absolute())])
            for folder in fitting[:SHOWN]
        ]
        cure = f"Say which model it was made from, by one of these: {' ; or: '.join(links)}"
    return ModelUnsuitable(
        f"{file.path} holds weights only, in a shape that Stable Diffusion 1.5, 2.1 and XL do not "
        f"have, and its configuration is not next to it. {cure}"
    )


def _cached(cache_dir: Path) -> list[Path]:
    patterns = ("*", "*/*", "models--*/snapshots/*")
    found = {path.parent for one in patterns for path in cache_dir.glob(f"{one}/{catalog.INDEX}")}
    return sorted(found)


def _fits(file: SingleFile, folder: Path) -> bool:
    try:
        _from_folder(file, folder, "")
    except (ModelError, FolderUnusable, OSError):
        return False
    return True
