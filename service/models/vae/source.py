"""A VAE in place of a model's own: where it is, and what kind it is, by its small files."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from service.errors import ModelMissing, ModelUnsuitable
from service.models import catalog, files, parts, weights
from service.models.figures import VAE

CONFIG: Final = "config.json"
KL: Final = "AutoencoderKL"
TINY: Final = "AutoencoderTiny"
PREFIX: Final = "first_stage_model."
"""What CompVis' checkpoints have in front of the names of the VAE's tensors."""

COMPVIS: Final = re.compile(r"(?:encoder|decoder)\.(?:down|up|mid)\..*")
DIFFUSERS: Final = re.compile(r"(?:encoder|decoder)\.(?:down_blocks|up_blocks|mid_block)\..*")
TINY_NAMES: Final = re.compile(r"(?:encoder|decoder)\.layers\.\d+\..*")
NAME: Final = re.compile(r"\w[\w.-]*(?:/\w[\w.-]*)?", re.ASCII)
"""A name in the catalogue, which is no path."""

SUPPORTED: Final = (
    f"A VAE is an {KL} or an {TINY}: a folder with {CONFIG} and {files.SUFFIX} weights, or one "
    f"{files.SUFFIX} file."
)


@dataclass(frozen=True, kw_only=True)
class VaeSource:
    """A VAE on this machine."""

    name: str
    path: Path
    """Its folder or file."""
    kind: str
    """``AutoencoderKL`` or ``AutoencoderTiny``."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """Of a single file: the figures that it is built with; its own are in a folder."""
    compvis: bool = False
    """Whether the names of its tensors are CompVis' own."""


def find(name: str, cache_dir: Path, *, paths: bool, like: Mapping[str, Any] = VAE) -> VaeSource:
    """Find a VAE by its name in the cache, or in a setting by its path.

    A single file has no figures of its own: it is built as ``like``.

    Raises:
        ModelMissing: there is none.
        ModelUnsuitable: it is something else.
        ModelError: it is damaged.

    """
    for path in _places(name, cache_dir, paths=paths):
        if path.is_dir() and (path / CONFIG).is_file():
            return _folder(name, path)
        if path.is_file():
            return _file(name, path, like)
    raise ModelMissing(
        f"There is no VAE {name!r} in {cache_dir / catalog.VAES} or among the models of the hub in "
        f"{cache_dir}. Put it there. {SUPPORTED}"
    )


def _places(name: str, cache_dir: Path, *, paths: bool) -> Iterator[Path]:
    if paths:
        yield Path(name)
    if NAME.fullmatch(name):
        yield cache_dir / catalog.VAES / name
        yield cache_dir / catalog.VAES / f"{name}{files.SUFFIX}"
        yield from sorted(
            (cache_dir / f"{catalog.HUB}{name.replace('/', '--')}").glob("snapshots/*")
        )


def _folder(name: str, path: Path) -> VaeSource:
    config = files.read_json(path / CONFIG, bom=False)
    kind = config.get("_class_name")
    if kind not in {KL, TINY}:
        raise ModelUnsuitable(f"{path} is a {kind}, no VAE that is read. {SUPPORTED}")
    parts.demand_weights(path, half=False)
    return VaeSource(name=name, path=path, kind=str(kind))


def _file(name: str, path: Path, like: Mapping[str, Any]) -> VaeSource:
    names = [key.removeprefix(PREFIX) for key in weights.header(path)]
    if any(map(TINY_NAMES.fullmatch, names)):
        return VaeSource(name=name, path=path, kind=TINY)
    compvis = any(map(COMPVIS.fullmatch, names))
    if compvis or any(map(DIFFUSERS.fullmatch, names)):
        return VaeSource(name=name, path=path, kind=KL, config=like, compvis=compvis)
    raise ModelUnsuitable(f"{path} holds no VAE. {SUPPORTED}")
