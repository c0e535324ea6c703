"""The machine that is measured: its card, its packages, and the model that is drawn with."""

import os
import platform
import time
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Final

import torch
from packaging.requirements import Requirement

from scripts.cards import here
from scripts.cards.suite.parts import Report, Task, Tell
from scripts.cards.suite.wheels import ROOT
from scripts.random_model.shapes import SHAPES
from service.errors import ConfigError, GpuMissing
from service.gpu.card import GIB

MODEL: Final = "models/random-sd15"
"""Built if it is missing; any other model must be there."""

PACKAGES: Final = (
    *("torch", "diffusers", "transformers", "accelerate", "safetensors", "huggingface-hub"),
    *("numpy", "pillow", "aiohttp", "prometheus-client", "nvidia-ml-py"),
)


def run(task: Task, tell: Tell) -> None:
    """Look for the GPU, name the versions, and build the model if it is missing.

    Raises:
        GpuMissing: there is no GPU, and a CPU was not asked for.
        ConfigError: the card has less memory than the limit, or the model is a single file.
        ModelError: the model is not here.

    """
    on_gpu = not task.on_cpu and here.on_gpu(task.vram)
    if not task.on_cpu and not on_gpu:
        raise GpuMissing(
            "torch finds no GPU here. --on-cpu runs the same parts small and in float32."
        )
    report = Report(table=[("", "here"), *rows(gpu=on_gpu)], notes=list(unmet()))
    report.figures = {row[0]: row[1] for row in report.table[1:]}
    tell(report)
    started = time.perf_counter()
    if build_missing(task.model):
        seconds = time.perf_counter() - started
        report.table.append((f"{task.model}, built in", f"{seconds:.1f} s"))
    source = here.found(task.model)
    if source.single_file:
        raise ConfigError(
            f"--model {task.model}: is a single file; name a folder in diffusers layout."
        )
    tell(report)


def rows(*, gpu: bool) -> Iterator[tuple[str, str]]:
    """Yield what the figures depend on."""
    device = "CPU"
    if gpu:
        card = torch.cuda.get_device_properties(0)
        device = card.name
        yield "VRAM", f"{card.total_memory / GIB:.1f} GB"
        yield "compute capability", f"{card.major}.{card.minor}"
    yield "device", device
    yield "CUDA of torch", str(torch.version.cuda)
    yield "processor", f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores"
    yield "python", platform.python_version()
    for name in PACKAGES:
        # torch's own word: the package's leaves out what it was built for.
        yield name, torch.__version__ if name == "torch" else metadata.version(name)


def unmet(project: Path = ROOT / "pyproject.toml") -> Iterator[str]:
    """Yield the packages that are missing here or older than the project asks for."""
    table = tomllib.loads(project.read_text(encoding="utf-8"))["project"]
    for line in [*table["dependencies"], *table["optional-dependencies"]["engine"]]:
        wanted = Requirement(line)
        try:
            found = metadata.version(wanted.name)
        except metadata.PackageNotFoundError:
            yield f"{wanted.name} is missing."
            continue
        if not wanted.specifier.contains(found, prereleases=True):
            yield f"{wanted.name} {found} is not {wanted.specifier}, which the project asks for."


def build_missing(model: str) -> bool:
    """Build the random model if it is the one asked for and not there; return whether it was."""
    if model != MODEL or Path(MODEL).exists():
        return False
    from scripts.random_model import folder  # noqa: PLC0415 - seconds of imports

    folder.build(SHAPES["sd15"], Path(MODEL))
    return True
