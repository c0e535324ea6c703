"""The command ``models``: what is installed, fetching, checking and removing it."""

import argparse
import os
import shutil
import sys
from pathlib import Path

from service import start
from service.config import Config
from service.diffusion import card
from service.errors import ConfigError, FolderUnusable, ModelError, ModelInUse, ModelMissing
from service.exits import Exit
from service.models import catalog, in_use
from service.models.catalog import Source
from service.telemetry import logs
from service.terminal import complain, show

ACTIONS = {
    "list": "print each installed model: its id for MODEL_ID, its version and its place",
    "pull": "fetch MODEL from the hub or go on with it, and check it",
    "verify": "compare MODEL, or every model, with its checksums",
    "remove": "delete MODEL from MODEL_CACHE_DIR",
}


def add_models_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what is to be done, and with which model."""
    told = "; ".join(f"{name}: {text}" for name, text in ACTIONS.items())
    parser.add_argument(
        "action",
        nargs="?",
        choices=ACTIONS,
        default="list",
        metavar="ACTION",
        help=f"{told} [list].",
    )
    parser.add_argument(
        "model", nargs="?", metavar="MODEL", help="A hub id, or a name of the list."
    )
    parser.add_argument("--yes", action="store_true", help="Remove without being asked.")


def models(config: Config, arguments: argparse.Namespace) -> int:
    """List, fetch, check or remove models; return an exit code of ``exits``."""
    action, name = str(arguments.action), arguments.model
    if action == "list":
        return _list(config)
    if action == "verify":
        return _verify(config, name)
    if name is None:
        raise ConfigError(
            f"models {action} needs the name of a model: sd-api models {action} MODEL"
        )
    if action == "pull":
        return _pull(config, name)
    return _remove(config, name, sure=bool(arguments.yes))


def _list(config: Config) -> int:
    found = catalog.installed(config.model_cache_dir)
    if not found:
        place = config.model_cache_dir.absolute()
        complain(f"no model is installed: none in MODEL_CACHE_DIR={place}, and no demo.")
        return Exit.DONE
    return show("\n".join(f"{model.id}\t{model.version}\t{model.path}" for model in found))


def _pull(config: Config, name: str) -> int:
    """Fetch a model as the engine would; what is damaged of it is fetched again."""
    logs.configure(config)
    start.demand_packages()
    name = catalog.ALIASES.get(name, name)
    if catalog.offline():
        raise ModelMissing(f"HF_HUB_OFFLINE=1 forbids to fetch {name}. Unset it, and try again.")
    if not catalog.is_hub_id(name):
        raise ConfigError(f"models pull {name}: is no hub id of the form organisation/name.")
    from service.models import hub  # noqa: PLC0415 - takes a while, and need not be installed

    cache_dir = config.model_cache_dir
    start.demand_writable(cache_dir, "MODEL_CACHE_DIR")
    for snapshot in sorted(hub.repository(cache_dir, name).glob("snapshots/*")):
        for path in hub.discard_damaged(_hub_source(name, snapshot)):
            complain(f"{path} was damaged and is fetched again.")
    try:
        source = hub.fetch(name, cache_dir, half=_half(config), progress=True)
    except KeyboardInterrupt:
        complain(f"what is here of it is kept; go on with: sd-api models pull {name}")
        raise
    faults = [text for _, text in hub.damaged(source)]
    if faults:
        hub.discard_damaged(source)
        raise ModelError(f"{faults[0]} What was damaged is removed: pull {name} again.")
    size = _gigabytes(_size(source.path))
    return show(f"{source.id}\t{source.version}\t{source.path}\t{size}, checked")


def _verify(config: Config, name: str | None) -> int:
    """Check one model or all; say of each what is wrong with it."""
    start.demand_packages()
    from service.models import hub  # noqa: PLC0415 - see _pull

    cache_dir = config.model_cache_dir
    sources = catalog.installed(cache_dir) if name is None else [_here(name, cache_dir)]
    failed = False
    for source in sources:
        faults = [text for _, text in hub.damaged(source)]
        for text in faults:
            complain(f"{source.id}: {text}")
        if not faults and (said := show(f"{source.id}\t{source.version}\twhole")):
            return said
        failed = failed or bool(faults)
    if failed:
        complain("models of the hub are repaired by: sd-api models pull MODEL")
    return Exit.MODEL_DAMAGED if failed else Exit.DONE


def _remove(config: Config, name: str, *, sure: bool) -> int:
    """Delete a model that lies in MODEL_CACHE_DIR, and nothing that lies elsewhere."""
    place = _place(catalog.ALIASES.get(name, name), config.model_cache_dir)
    size = _gigabytes(_size(place))
    if in_use.held(place):
        raise ModelInUse(f"{name} is in use. End the service that draws with it, and try again.")
    if not sure:
        if not sys.stdin.isatty():
            raise ConfigError(f"models remove {name}: would delete {place}; confirm it with --yes.")
        answer = input(f"Delete {place} ({size})? [y/N] ")
        if answer.strip().lower() not in {"y", "yes"}:
            complain("nothing was deleted.")
            return Exit.FAILED
    try:
        if place.is_dir() and not place.is_symlink():
            shutil.rmtree(place)
        else:
            place.unlink()
    except OSError as error:
        raise FolderUnusable(f"{place} cannot be deleted ({error.strerror}).") from error
    return show(f"{name}\tdeleted, {size} are free again")


def _place(name: str, cache_dir: Path) -> Path:
    """Return the entry of the cache that a name stands for.

    Raises:
        ModelMissing: there is none; what lies outside the cache is not ours to delete.

    """
    cache = _normal(cache_dir)
    for place in (cache / f"models--{name.replace('/', '--')}", _normal(cache / name)):
        if cache in place.parents and os.path.lexists(place):
            return place
    raise ModelMissing(
        f"there is no model {name!r} in MODEL_CACHE_DIR={cache_dir}, and only what is there is "
        "removed. 'sd-api models' lists what is there."
    )


def _normal(path: Path) -> Path:
    """Return a path without dots, not resolved: of a link the link is removed, not its target."""
    return Path(os.path.normpath(path.absolute()))


def _here(name: str, cache_dir: Path) -> Source:
    """Return a model that is on this machine, an unfinished or damaged one too."""
    source = catalog.resolve(name, cache_dir)
    if source.path is not None:
        return source
    folders = sorted((cache_dir / f"models--{source.id.replace('/', '--')}").glob("snapshots/*"))
    if folders:
        raise ModelError(f"{source.id} is not whole. Go on with: sd-api models pull {source.id}")
    raise ModelMissing(f"{source.id} is not in {cache_dir}. Fetch it: sd-api models pull {name}")


def _hub_source(name: str, snapshot: Path) -> Source:
    return Source(id=name, path=snapshot, version=catalog.hub_version(name, snapshot))


def _half(config: Config) -> bool:
    """Return whether the engine would compute in half precision here."""
    if config.dtype != "auto" or config.device == "cpu":
        return config.dtype == "float16"
    try:
        return card.look(config.cuda_visible_devices) is not None
    except card.NoCardError:
        return False


def _size(place: Path | None) -> int:
    if place is None:
        return 0
    if not place.is_dir() or place.is_symlink():
        return place.lstat().st_size
    blobs = {path.resolve() for path in place.rglob("*") if path.is_file()}
    return sum(path.stat().st_size for path in blobs)


def _gigabytes(size: int) -> str:
    return f"{size / 2**30:.2f} GB"
