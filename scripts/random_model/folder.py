"""A model with random weights as a folder in diffusers layout, whole or not there at all."""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from itertools import islice, product
from pathlib import Path
from string import ascii_lowercase
from typing import Any, Final

import diffusers
import torch
from safetensors import SafetensorError

from scripts.random_model import networks
from service.errors import ConfigError, DiskFull, FolderUnusable
from service.models.catalog import INDEX
from service.models.figures import Figures
from service.models.vocabulary import MERGES, SIZE, WORD_END, Vocabulary

SCHEDULERS: Final[Mapping[tuple[str, str], tuple[str, Mapping[str, Any]]]] = {
    ("sd", "epsilon"): ("PNDMScheduler", {}),
    ("sd", "v_prediction"): ("DDIMScheduler", {"clip_sample": False}),
    ("sdxl", "epsilon"): ("EulerDiscreteScheduler", {}),
}
"""By family and prediction type, the class that its file names, and what else it says."""

INDICES: Final[Mapping[str, Mapping[str, Any]]] = {
    "sd": {
        "_class_name": "StableDiffusionPipeline",
        "safety_checker": [None, None],
        "feature_extractor": [None, None],
        "requires_safety_checker": False,
    },
    "sdxl": {"_class_name": "StableDiffusionXLPipeline"},
}
"""What ``model_index.json`` says of a family besides its parts."""

GB: Final = 10**9
"""As disks are sold, and as ``df -H`` says it."""

MORE_BYTES: Final = 10_000_000
"""Generous: two tokenizers and the configurations take 4 MB."""


def needed_bytes(shape: Figures, dtype: torch.dtype) -> int:
    """Return what the weights take."""
    return dtype.itemsize * sum(networks.parameters(*part) for part in shape.parts.items())


def build(
    shape: Figures,
    folder: Path,
    *,
    dtype: torch.dtype = torch.float16,
    seed: int = 0,
    done: Callable[[int], object] = lambda _bytes: None,
) -> Path:
    """Write the model next to its place and move it there when it is whole; return its folder.

    Raises:
        ConfigError: there is something already.
        DiskFull: the disk has no room for it; nothing was written.
        FolderUnusable: its place cannot be written to.

    """
    if folder.exists():
        raise ConfigError(f"{folder} exists already. Name another folder, or remove it first.")
    part = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        _demand_room(folder, needed_bytes(shape, dtype) + MORE_BYTES)
        part.mkdir()
    except OSError as error:
        raise FolderUnusable(f"{folder.parent} cannot be written ({error.strerror}).") from error
    try:
        _write(shape, part, dtype, torch.Generator().manual_seed(seed), done)
        part.rename(folder)
    except (OSError, SafetensorError) as error:
        raise FolderUnusable(f"{folder} cannot be written ({error}).") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def _demand_room(folder: Path, wanted: int) -> None:
    free = shutil.disk_usage(folder.parent).free
    if wanted > free:
        raise DiskFull(
            f"{folder} needs {wanted / GB:.1f} GB, and {free / GB:.1f} GB are free on the disk of "
            f"{folder.parent}. Make room there, or name a folder on another disk."
        )


def _write(
    shape: Figures,
    folder: Path,
    dtype: torch.dtype,
    generator: torch.Generator,
    done: Callable[[int], object],
) -> None:
    scheduler, more = SCHEDULERS[shape.family, shape.schedule["prediction_type"]]
    index = {
        **INDICES[shape.family],
        **shape.settings,
        "_diffusers_version": diffusers.__version__,
        "scheduler": ["diffusers", scheduler],
        **{name: networks.KINDS[name] for name in shape.parts},
        **{name: ["transformers", "CLIPTokenizer"] for name in shape.padding},
    }
    for name, config in shape.parts.items():
        networks.write(name, config, folder / name, dtype, generator, done=done)
    for name, pad in shape.padding.items():
        entries = shape.parts[name.replace("tokenizer", "text_encoder")]["vocab_size"]
        vocabulary(min(entries, SIZE)).write(folder / name, pad)
    made = getattr(diffusers, scheduler).from_config({**shape.schedule, **more})
    made.save_pretrained(folder / "scheduler")
    text = json.dumps(index, indent=2, sort_keys=True)
    (folder / INDEX).write_text(text + "\n", encoding="utf-8")


def vocabulary(entries: int = SIZE) -> Vocabulary:
    """Return a vocabulary, by default of CLIP's size, whose merges are invented.

    All pairs of letters are merged, then what those make with a further one. Texts become more
    tokens than with CLIP's own, of which a measurement feels nothing: the encoders always read 77.
    """
    return Vocabulary(merges=tuple(islice(_merges(), MERGES + entries - SIZE)), source="random")


def _merges() -> Iterator[str]:
    """Yield pairs to merge, each part of which a sign or an earlier pair made."""
    made = list(ascii_lowercase)
    while True:
        for end in (WORD_END, ""):
            yield from (
                f"{start} {letter}{end}" for start, letter in product(made, ascii_lowercase)
            )
        made = [start + letter for start, letter in product(made, ascii_lowercase)]
