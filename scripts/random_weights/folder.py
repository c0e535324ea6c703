"""A model with random weights as a folder in diffusers layout, whole or not there at all."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import diffusers
import torch
from safetensors import SafetensorError

from scripts.random_weights import tokens, weights
from scripts.random_weights.shapes import Shape, parameters
from service.errors import ConfigError, DiskFull, FolderUnusable
from service.models.catalog import INDEX

GB: Final = 10**9
"""As disks are sold, and as ``df -H`` says it."""

BESIDE_WEIGHTS: Final = 10_000_000
"""Generous: two tokenizers and the configurations take 4 MB."""


def needed_bytes(shape: Shape, dtype: torch.dtype) -> int:
    """Return what the weights take."""
    return dtype.itemsize * sum(parameters(part) for part in shape.parts.values())


def build(
    shape: Shape,
    folder: Path,
    *,
    dtype: torch.dtype = torch.float16,
    seed: int = 0,
    done: Callable[[int], object] = lambda _bytes: None,
) -> Path:
    """Write the model beside its place and move it there when it is whole; return its folder.

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
        _demand_room(folder, needed_bytes(shape, dtype) + BESIDE_WEIGHTS)
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
    shape: Shape,
    folder: Path,
    dtype: torch.dtype,
    generator: torch.Generator,
    done: Callable[[int], object],
) -> None:
    index: dict[str, Any] = {
        "_class_name": shape.pipeline,
        "_diffusers_version": diffusers.__version__,
        "scheduler": ["diffusers", shape.scheduler],
        **shape.index,
    }
    for name, part in shape.parts.items():
        index[name] = [part.library, part.name]
        path = folder / name / part.weights_file
        path.parent.mkdir()
        model = part.empty()
        if part.library == "diffusers":
            model.save_config(path.parent)
        else:
            model.config.architectures = [part.name]
            model.config.save_pretrained(path.parent)
        weights.write(part, path, dtype, generator, done)
    for name, pad in shape.tokenizers.items():
        index[name] = ["transformers", "CLIPTokenizer"]
        tokens.write(folder / name, pad=pad).save_pretrained(folder / name)
    scheduler = getattr(diffusers, shape.scheduler).from_config(dict(shape.schedule))
    scheduler.save_pretrained(folder / "scheduler")
    text = json.dumps(index, indent=2, sort_keys=True)
    (folder / INDEX).write_text(text + "\n", encoding="utf-8")
