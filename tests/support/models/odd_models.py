"""Tiny models as people bring them: older, halved, broken; and the commands that draw with them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from service.__main__ import main
from tests.support.models import tiny_models

SIZE = 64
UNET = "unet/diffusion_pytorch_model.safetensors"


class Place:
    """A folder with models in it, and the commands on them."""

    def __init__(self, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.cache = folder / "cache"
        self.cache.mkdir()
        self._capfd = capfd

    def build(self, kind: str = "sd", name: str = "model", **changes: Any) -> Path:
        """Write a tiny model."""
        return Path(getattr(tiny_models, f"build_{kind}")(self.folder / name, **changes))

    def run(self, *words: str, model: Path, **flags: object) -> tuple[int, str]:
        """Run a command; return its exit code and its last line on stderr."""
        settings = {
            "model-id": model,
            "model-cache-dir": self.cache,
            "device": "cpu",
            "torch-threads": 1,
            "min-size": SIZE,
            "default-size": SIZE,
            "data-dir": "",
            **flags,
        }
        given = [f"--{name}={value}" for name, value in settings.items()]
        self._capfd.readouterr()
        code = main([*words, *given])
        said = self._capfd.readouterr().err
        assert "Traceback" not in said
        lines = [line for line in said.splitlines() if line.startswith("sd-api: ")]
        assert len(lines) <= 1, said
        return code, (lines or [""])[0]

    def draw(self, model: Path, *words: str, **flags: object) -> tuple[int, str]:
        """Draw an image by the command line."""
        out = self.folder / "out.png"
        out.unlink(missing_ok=True)
        told = ("--steps=4", "--seed=5", "--guidance-scale=7.5", *words)
        return self.run("generate", "a cat", f"--output={out}", *told, model=model, **flags)

    def drawn(self, model: Path, *words: str, **flags: object) -> np.ndarray:
        """Draw an image, and return it."""
        assert self.draw(model, *words, **flags) == (0, "")
        return np.asarray(Image.open(self.folder / "out.png"))


def edit(path: Path, **changes: Any) -> None:
    """Change keys of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def schedule(folder: Path, **content: Any) -> Path:
    """Give a model the scheduler file of an older or another program."""
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(content))
    return folder


def by_diffusers(folder: Path, scheduler: str, **changes: Any) -> np.ndarray:
    """Draw the same image with diffusers alone; ``changes`` are keywords of the scheduler."""
    config = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
    index = json.loads((folder / "model_index.json").read_text())
    kind: Any = getattr(diffusers, index["_class_name"])
    pipeline = kind.from_pretrained(folder, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = getattr(diffusers, scheduler).from_config(config, **changes)
    return np.asarray(
        pipeline(
            "a cat",
            width=SIZE,
            height=SIZE,
            num_inference_steps=4,
            guidance_scale=7.5,
            generator=torch.Generator("cpu").manual_seed(5),
        ).images[0]
    )


def broken(change: Callable[[Path], object], *, kind: str = "sd") -> Callable[[Place], Path]:
    """Return what builds a model and then spoils it."""

    def build(place: Place) -> Path:
        model = place.build(kind)
        change(model)
        return model

    return build


def unlink(name: str) -> Callable[[Path], object]:
    """Return what deletes a file of a model."""
    return lambda model: (model / name).unlink()


def replaced(name: str, content: bytes) -> Callable[[Path], object]:
    """Return what puts something else in the place of a file."""
    return lambda model: (model / name).write_bytes(content)


def config(part: str, **changes: Any) -> Callable[[Path], object]:
    """Return what changes a part's configuration."""
    return lambda model: edit(model / part / "config.json", **changes)


def index(**changes: Any) -> Callable[[Path], object]:
    """Return what changes the index."""
    return lambda model: edit(model / "model_index.json", **changes)


def pickled(model: Path) -> None:
    """Leave weights in pickles only."""
    for path in model.glob("*/*.safetensors"):
        path.rename(path.with_suffix(".bin"))


def halves(folder: Path, part: str, *, shards: bool, older: bool = False) -> None:
    """Leave a part's weights in float16 only, whole or in two shards."""
    (path,) = (folder / part).glob("*.safetensors")
    stem = path.stem
    tensors = {key: value.half() for key, value in load_file(path).items()}
    path.unlink()
    if not shards:
        save_file(tensors, path.with_name(f"{stem}.fp16.safetensors"), {"format": "pt"})
        return
    names = [
        f"{stem}-0000{n}-of-00002.fp16.safetensors"
        if older
        else f"{stem}.fp16-0000{n}-of-00002.safetensors"
        for n in (1, 2)
    ]
    keys = sorted(tensors)
    owners = {key: names[number % 2] for number, key in enumerate(keys)}
    for name in names:
        own = {key: tensors[key] for key in keys if owners[key] == name}
        save_file(own, path.with_name(name), {"format": "pt"})
    total = sum(value.nbytes for value in tensors.values())
    (folder / part / f"{stem}.safetensors.index.fp16.json").write_text(
        json.dumps({"metadata": {"total_size": total}, "weight_map": owners})
    )
