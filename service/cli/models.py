"""The command ``models``: what is installed, fetching, checking and removing it."""

import argparse
import os
import shutil
import sys
from pathlib import Path

from service.cli import exits, preflight
from service.cli.exits import Exit
from service.cli.terminal import print_error, show
from service.config.table import Config
from service.errors import (
    ConfigError,
    FolderUnusable,
    ModelError,
    ModelInUse,
    ModelMissing,
    ModelUnsuitable,
    ServiceError,
)
from service.gpu import card
from service.models import catalog, commands, files, model_lock, weights
from service.models.catalog import Entry
from service.models.source import Source
from service.telemetry import logs

ACTIONS = {
    "list": "print the id (for MODEL_ID), version and path of each model that can be loaded",
    "pull": "download MODEL from the hub, or resume a download, and check it",
    "verify": "check MODEL, or every model, by checksum, or by length where there is no checksum",
    "remove": "delete MODEL from MODEL_CACHE_DIR",
}


def add_models_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what is to be done, and with which model."""
    told = "; ".join(f"{name}: {text}" for name, text in ACTIONS.items())
    parser.add_argument(
        "action",
        nargs="?",
        choices=tuple(ACTIONS),
        default="list",
        metavar="ACTION",
        help=f"{told} [list].",
    )
    parser.add_argument(
        "model", nargs="?", metavar="MODEL", help="A hub id or a name that `models list` prints."
    )
    parser.add_argument("--yes", action="store_true", help="Remove without confirmation.")
    parser.add_argument(
        "--configuration",
        action="store_true",
        help="Download only the small files that a single-file model needs, no weights.",
    )


def models(config: Config, arguments: argparse.Namespace) -> int:
    """List, fetch, check or remove models; return an exit code of ``exits``."""
    action, name = str(arguments.action), arguments.model
    if action == "list":
        return _list(config)
    if action == "verify":
        return _verify(config, name)
    if name is None:
        raise ConfigError(f"models {action} needs the name of a model: write it after '{action}'.")
    if action == "pull":
        return _pull(config, name, configuration=bool(arguments.configuration))
    return _remove(config, name, sure=bool(arguments.yes))


def _list(config: Config) -> int:
    """Print what loads; say of everything else in the cache why it is left out."""
    cache_dir = config.model_cache_dir
    found = []
    for entry in _entries(cache_dir):
        try:
            source = _source(entry, cache_dir)
            _check(source, cache_dir)
            found.append(source)
        except ServiceError as error:
            print_error(f"{entry.id} is left out: {error.detail}")
    if not found:
        print_error(f"no model is installed: none in MODEL_CACHE_DIR={cache_dir.absolute()}.")
        return Exit.DONE
    return show("\n".join(f"{model.id}\t{model.version}\t{model.path}" for model in found))


def _entries(cache_dir: Path) -> list[Entry]:
    """Return the demo, where it is bundled, and whatever the cache has."""
    demo = Entry(id=catalog.DEMO_ID, path=catalog.DEMO_FOLDER)
    bundled = [demo] if demo.path.is_dir() else []
    return bundled + catalog.entries(cache_dir)


def _source(entry: Entry, cache_dir: Path) -> Source:
    if entry.path == catalog.DEMO_FOLDER:
        return catalog.resolve(catalog.DEMO_ID, cache_dir)
    return entry.source()


def _pull(config: Config, name: str, *, configuration: bool) -> int:
    """Fetch a model as the engine would; what is damaged of it is fetched again."""
    logs.configure(config)
    preflight.demand_packages()
    name = catalog.ALIASES.get(name, name)
    if catalog.offline():
        raise ModelMissing(f"HF_HUB_OFFLINE=1 forbids downloading {name}. Unset it, and try again.")
    if not catalog.is_hub_id(name):
        raise ConfigError(f"models pull {name}: is no hub id of the form organisation/name.")
    from service.models.hub import pull as hub  # noqa: PLC0415 - takes a while, and need not be installed

    cache_dir, half = config.model_cache_dir, _half(config)
    preflight.demand_writable(cache_dir, "MODEL_CACHE_DIR")
    for snapshot in sorted(hub.repository(cache_dir, name).glob("snapshots/*")):
        source = Source(id=name, path=snapshot, version=catalog.hub_version(name, snapshot))
        for path in hub.discard_damaged(source, half=half):
            print_error(f"{path} was damaged and is fetched again.")
    try:
        source = hub.fetch(name, cache_dir, half=half, shown=True, configuration=configuration)
    except KeyboardInterrupt:
        again = commands.models("pull", name, cache_dir=cache_dir)
        print_error(f"The parts that have arrived are kept. To continue: {again}")
        raise
    faults = [fault for fault in hub.damaged(source, half=half) if not fault.stray]
    if faults:
        hub.discard_damaged(source, half=half)
        raise ModelError(faults[0].text)
    if not configuration:
        _check(source, cache_dir)
    size = _gigabytes(_size(source.path))
    ended = "configuration only" if configuration else "checked"
    return show(f"{source.id}\t{source.version}\t{source.path}\t{size}, {ended}")


def _verify(config: Config, name: str | None) -> int:
    """Check one model or all; say of each what is wrong with it.

    Of all, what is whole and another kind of thing, a LoRA for one, is named and is no failure.
    """
    preflight.demand_packages()
    cache_dir, half = config.model_cache_dir, _half(config)
    if name is not None:
        return _judge(_here(name, cache_dir), cache_dir, half=half)
    worst: int = Exit.DONE
    for entry in _entries(cache_dir):
        try:
            worst = _judge(_source(entry, cache_dir), cache_dir, half=half) or worst
        except ModelUnsuitable as error:
            print_error(f"{entry.id} is no model: {error.detail}")
            worst = worst if _is_something_else(entry) else Exit.MODEL_DAMAGED
        except ServiceError as error:
            print_error(f"{entry.id}: {error.detail}")
            worst = exits.code(error)
    return worst


def _judge(source: Source, cache_dir: Path, *, half: bool) -> int:
    """Say of a model that it is whole, or what is wrong with it; return the exit code.

    Raises:
        ModelError: it would not load.

    """
    from service.models.hub import pull as hub  # noqa: PLC0415 - see _pull

    faults = list(hub.damaged(source, half=half))
    for fault in faults:
        note = " Nothing reads it: the model loads without it." if fault.stray else ""
        print_error(f"{source.id}: {fault.text}{note}")
    if any(not fault.stray for fault in faults):
        return Exit.MODEL_DAMAGED
    _check(source, cache_dir)
    how = "complete (lengths only)"
    if hub.hashed(source, half=half):
        how = "whole (hashes compared)"
    return show(f"{source.id}\t{source.version}\t{how}")


def _check(source: Source, cache_dir: Path) -> None:
    """Refuse what would not load; whatever is in a file, the other models are judged, too.

    Raises:
        ServiceError: with the cause.

    """
    from service.models import layout  # noqa: PLC0415 - it needs a package of the engine

    try:
        layout.check(source, cache_dir)
    except ServiceError:
        raise
    except Exception as error:
        cause = f"{type(error).__name__}: {error}"
        raise ModelError(f"{source.path} cannot be judged ({cause}). Use another copy.") from error


def _is_something_else(entry: Entry) -> bool:
    """Tell a LoRA, a VAE or another program's model from a model that is damaged or not whole."""
    from service.models import layout  # noqa: PLC0415 - see _check

    if entry.path.suffix in files.PICKLES or entry.path.name.startswith(catalog.HUB):
        return True
    try:
        if not entry.path.is_dir():
            weights.header(entry.path)
            return True
        return str(catalog.index(entry.path)["_class_name"]) not in layout.FAMILIES
    except ServiceError:
        return False


def _remove(config: Config, name: str, *, sure: bool) -> int:
    """Delete a model that lies in MODEL_CACHE_DIR, and nothing that lies elsewhere."""
    place = _place(name, config.model_cache_dir)
    size = _gigabytes(_size(place))
    if model_lock.held(place):
        raise ModelInUse(f"{name} is in use. End the service that draws with it, and try again.")
    if not sure:
        if not sys.stdin.isatty():
            raise ConfigError(f"models remove {name}: would delete {place}; confirm it with --yes.")
        answer = input(f"Delete {place} ({size})? [y/N] ")
        if answer.strip().lower() not in {"y", "yes"}:
            print_error("nothing was deleted.")
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
    for each in catalog.names(name):
        for place in (cache / f"{catalog.HUB}{each.replace('/', '--')}", _normal(cache / each)):
            if cache in place.parents and os.path.lexists(place):
                return place
    raise ModelMissing(
        f"there is no model {name!r} in MODEL_CACHE_DIR={cache_dir}, and only what is there is "
        f"removed. This command lists what is there: {commands.models('list', cache_dir=cache_dir)}"
    )


def _normal(path: Path) -> Path:
    """Return a path without dots, not resolved: of a link the link is removed, not its target."""
    return Path(os.path.normpath(path.absolute()))


def _here(name: str, cache_dir: Path) -> Source:
    """Return a model that is on this machine, an unfinished or damaged one too."""
    source = catalog.resolve(name, cache_dir)
    if source.path is not None:
        return source
    for each in catalog.names(name):
        if any((cache_dir / f"{catalog.HUB}{each.replace('/', '--')}").glob("snapshots/*")):
            raise catalog.unfinished(each, cache_dir)
    pull = commands.models("pull", source.id, cache_dir=cache_dir)
    raise ModelMissing(f"{source.id} is not in {cache_dir}. Fetch it: {pull}")


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
