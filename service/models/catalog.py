"""Which models there are, and where; reads names and small JSON files only, no torch."""

import json
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from service.errors import FolderUnusable, ModelError, ModelMissing, ModelUnsuitable

DEMO_ID = "demo"
DEMO_VERSION = "demo-1.0"
DEMO_FOLDER = Path(__file__).parent.parent / "demo"
ALIASES = {
    # The organisation left the hub in 2024; the same weights live on under this name.
    "runwayml/stable-diffusion-v1-5": "stable-diffusion-v1-5/stable-diffusion-v1-5",
}
INDEX = "model_index.json"
SINGLE_FILE = ".safetensors"
WEIGHTED = frozenset({"unet", "vae", "text_encoder", "text_encoder_2"})
PICKLES = frozenset({".ckpt", ".bin", ".pt", ".pth", ".pkl"})


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a model comes from."""

    id: str
    """The name it was asked for by, aliases resolved."""
    path: Path | None
    """Folder or file on this machine; None when it has to come from the hub."""
    version: str
    """What answers carry as ``model_version``."""
    single_file: bool = False
    demo: bool = False


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
        raise unreadable(error) from error


def unreadable(error: OSError) -> FolderUnusable:
    """Return the error of a model that is there for others."""
    return FolderUnusable(
        f"{error.filename} cannot be read ({error.strerror}). Make it, and all folders above it, "
        f"readable for the service's user{user()}."
    )


def demand_readable(path: Path) -> None:
    """Refuse a file that is there for others; what is not there at all is left to its reader.

    Raises:
        FolderUnusable: the service's user may not read it.

    """
    try:
        with path.open("rb"):
            pass
    except PermissionError as error:
        raise unreadable(error) from error
    except OSError:
        return


def user() -> str:
    """Return the user's number, by which a container's user is known outside of it."""
    return f" {os.geteuid()}:{os.getegid()}" if hasattr(os, "geteuid") else ""


def _found(model_id: str, cache_dir: Path) -> Source:
    name = ALIASES.get(model_id, model_id)
    if name == DEMO_ID:
        return Source(id=DEMO_ID, path=DEMO_FOLDER, version=DEMO_VERSION, demo=True)
    for candidate in (Path(name).expanduser(), cache_dir / name):
        if candidate.exists():
            return _local(name, candidate)
    if (cached := _snapshot(cache_dir, name, usable=_complete)) is not None:
        return Source(id=name, path=cached, version=hub_version(name, cached))
    if is_hub_id(name):
        return Source(id=name, path=None, version=name)
    raise ModelMissing(
        f"There is no model {model_id!r}: no such file or folder, not in {cache_dir}, and no "
        "hub id of the form organisation/name. 'sd-api models' lists what is there."
    )


def offline() -> bool:
    """Return whether HF_HUB_OFFLINE forbids to ask the hub; read as its client reads it."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}


def missing_offline(name: str, cache_dir: Path) -> ModelMissing:
    """Return the error of a model that is neither here nor may be fetched."""
    return ModelMissing(
        f"{name} is not in {cache_dir} and HF_HUB_OFFLINE=1 forbids to fetch it. Start "
        "once with a network, or copy that folder from a machine that did."
    )


def installed(cache_dir: Path) -> list[Source]:
    """List the models that load without a network: the demo, then the cache by name.

    A damaged model is left out, like one whose download was interrupted: whoever asks for it
    by name is told what is wrong with it.

    Raises:
        ModelError: the cache's folder cannot be read.

    """
    found = [resolve(DEMO_ID, cache_dir)] if (DEMO_FOLDER / INDEX).is_file() else []
    if not cache_dir.is_dir():
        return found
    try:
        entries = sorted(cache_dir.iterdir())
    except OSError as error:
        raise ModelError(
            f"MODEL_CACHE_DIR={cache_dir} cannot be read ({error.strerror})."
        ) from error
    cached = []
    for entry in entries:
        if entry.name.startswith("models--"):
            name = entry.name.removeprefix("models--").replace("--", "/")
            folder = None
            with suppress(OSError):  # Another user's.
                folder = _snapshot(cache_dir, name, usable=_usable)
            if folder is not None:
                cached.append(Source(id=name, path=folder, version=hub_version(name, folder)))
        elif entry.suffix == SINGLE_FILE or _usable(entry):
            cached.append(_local(entry.name, entry))
        else:
            cached += [
                _local(f"{entry.name}/{inner.name}", inner)
                for inner in _inside(entry)
                if inner.suffix == SINGLE_FILE or _usable(inner)
            ]
    return found + sorted(cached, key=lambda source: source.id)


def configurations(cache_dir: Path, *, first: str | None = None) -> list[Path]:
    """List the cache's folders in diffusers layout, with or without weights, one name first."""
    found = sorted(
        path.parent
        for pattern in (f"*/{INDEX}", f"*/*/{INDEX}", f"models--*/snapshots/*/{INDEX}")
        for path in cache_dir.glob(pattern)
    )
    wanted = {"models--" + first.replace("/", "--"), *Path(first).parts} if first else set()
    return sorted(found, key=lambda folder: not wanted & set(folder.parts))


def pipeline_class(folder: Path) -> str:
    """Return the pipeline class that a folder in diffusers layout names.

    Raises:
        ModelError: the folder has no readable ``model_index.json``.

    """
    return str(index(folder)["_class_name"])


def index(folder: Path) -> dict[str, object]:
    """Read a folder's ``model_index.json``.

    Raises:
        ModelError: it is missing or no such file.

    """
    path = folder / INDEX
    if not path.is_file():
        raise ModelUnsuitable(
            f"{folder} is no model in diffusers layout: it has no {INDEX}. Give the folder "
            f"that holds it, or a single {SINGLE_FILE} file."
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error.strerror}).") from error
    except ValueError as error:
        raise ModelError(f"{path} is damaged ({error}). Fetch the model again.") from error
    if not isinstance(content, dict) or "_class_name" not in content:
        raise ModelError(f"{path} names no pipeline class. Fetch the model again.")
    return content


def hub_version(name: str, snapshot: Path) -> str:
    """Return ``organisation/name@abcdef0`` of a snapshot folder, which is named by its commit."""
    return f"{name}@{snapshot.name[:7]}"


def _local(name: str, path: Path) -> Source:
    if path.is_dir():
        return Source(id=name, path=path, version=path.resolve().name)
    if path.suffix in PICKLES:
        raise ModelUnsuitable(
            f"{path} is a pickle file, which can run code when read. Only {SINGLE_FILE} files "
            "are loaded; most models are published in both formats."
        )
    if path.suffix != SINGLE_FILE:
        raise ModelUnsuitable(f"{path} is neither a folder nor a {SINGLE_FILE} file.")
    return Source(id=name, path=path, version=path.stem, single_file=True)


def _snapshot(cache_dir: Path, name: str, *, usable: Callable[[Path], bool]) -> Path | None:
    """Return the folder of a cached hub model, of its main branch if that is there."""
    repository = cache_dir / ("models--" + name.replace("/", "--"))
    branch = repository / "refs" / "main"
    if branch.is_file():
        commit = branch.read_text(encoding="utf-8", errors="replace").strip()
        if usable(folder := repository / "snapshots" / commit):
            return folder
    folders = [found for found in repository.glob("snapshots/*") if usable(found)]
    return max(folders, key=lambda folder: folder.stat().st_mtime, default=None)


def _complete(folder: Path) -> bool:
    """Tell whether a folder holds a whole model: an interrupted download lacks weights.

    Raises:
        ModelError: its ``model_index.json`` cannot be read.

    """
    return (folder / INDEX).is_file() and all(
        any(folder.glob(f"{part}/*{SINGLE_FILE}"))
        for part, named in index(folder).items()
        if part in WEIGHTED and isinstance(named, list) and named[-1:] != [None]
    )


def _usable(folder: Path) -> bool:
    """Tell the same of a model that nobody asked for, whose damage is nobody's trouble."""
    try:
        return _complete(folder)
    except (ModelError, OSError):
        return False


def _inside(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:  # A file, or a folder that is not ours to read.
        return []


def is_hub_id(name: str) -> bool:
    """Tell whether a name has the form of a hub id, organisation/name."""
    organisation, _, rest = name.partition("/")
    allowed = set("-_.")
    return all(
        part and all(c.isalnum() or c in allowed for c in part) and not part.startswith(".")
        for part in (organisation, rest)
    )
