"""Models from the hub: which files, how large, fetched, resumed and checked; imports no torch."""

import hashlib
import logging
import os
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import structlog
from huggingface_hub import HfApi, hf_hub_download, hf_hub_url, snapshot_download
from huggingface_hub.file_download import http_get
from huggingface_hub.utils._headers import build_hf_headers
from huggingface_hub.utils.tqdm import disable_progress_bars

from service.errors import DiskFull, ModelError, ModelUnsuitable
from service.models import catalog, commands, files, layout, weights
from service.models.hub.errors import explained, gigabytes, no_room
from service.models.hub.progress import progress
from service.models.source import Source

if sys.platform != "win32":
    import fcntl

log = structlog.get_logger(__name__)

SMALL: Final = (".json", ".txt", ".model")
INDICES: Final = ".index."
"""In the names of the files that list the shards of a part."""

CHECKSUM: Final = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
"""How the cache names a file: Git's SHA-1 of small ones, SHA-256 of large ones (Git LFS)."""

SHA256_DIGITS: Final = 64
CHUNK: Final = 2**20
README: Final = "README.md"
"""It names the licence."""

PART: Final = ".part"
MARGIN: Final = 100 * 2**20
"""Bytes that are left on the disk next to a model."""


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """One file of a model on the hub."""

    path: str
    size: int
    sha256: str = ""
    """Of large files (Git LFS)."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A file that is not what it was."""

    path: Path
    text: str
    stray: bool = False
    """Whether nothing reads it, so that the model loads all the same."""


def fetch(
    name: str, cache_dir: Path, *, half: bool, shown: bool = False, configuration: bool = False
) -> Source:
    """Fetch a model, going on where an interrupted fetch stopped; return where it lies.

    With ``half`` the half-precision files are taken where there are any: half the size. With
    ``configuration`` no weights are: a single-file checkpoint needs the rest of such a model.

    Raises:
        ModelMissing: the hub has no such model, or not for everybody.
        HubUnreachable: it does not answer, or HF_HUB_OFFLINE forbids to ask.
        DiskFull: there is no room for it.
        ModelError: it is of another kind, or has no safetensors files.

    """
    disable_progress_bars()  # The client's own count files, not bytes.
    logging.getLogger("huggingface_hub").handlers.clear()  # Else each line comes twice, once bare.
    with explained(name, cache_dir):
        # Some kilobytes that tell whether the gigabytes are worth fetching.
        index = Path(hf_hub_download(name, catalog.INDEX, cache_dir=cache_dir))
        layout.index_family(index.parent)
        info = HfApi().model_info(name, files_metadata=True)
        there = [_remote(sibling) for sibling in info.siblings or []]
        chosen = wanted(there, catalog.index(index.parent), half=half, configuration=configuration)
        _demand_room(name, chosen, cache_dir)
        total = sum(row.size for row in chosen)
        log.info("model_download_started", model_id=name, bytes=total)
        with progress(name, total, lambda: _held(name, cache_dir), shown=shown):
            for row in chosen:
                if row.sha256:
                    _fetch_large(name, row, info.sha, cache_dir)
            folder = Path(
                snapshot_download(
                    name, cache_dir=cache_dir, allow_patterns=[row.path for row in chosen]
                )
            )
    return Source(id=name, path=folder, version=catalog.hub_version(name, folder))


def wanted(
    there: Sequence[RemoteFile],
    index: dict[str, object],
    *,
    half: bool,
    configuration: bool = False,
) -> list[RemoteFile]:
    """Pick the files that loading reads, of the parts that ``model_index.json`` names.

    With ``configuration`` all of them but the weights.

    Raises:
        ModelError: a part has no safetensors file.

    """
    chosen = [row for row in there if row.path in {catalog.INDEX, README}]
    for part in catalog.parts(index):
        own = {row.path.rpartition("/")[2]: row for row in there if _folder(row) == part}
        chosen += [row for name, row in own.items() if name.endswith(SMALL) and INDICES not in name]
        if configuration:
            continue
        weighty = weights.choose(own, half=half, part=part)
        if weighty is None and part in weights.WEIGHTED:
            raise ModelUnsuitable(
                f"its {part} has no .safetensors file on the hub, or not all of them, and pickles, "
                "which can run code when read, are not loaded. Choose another model."
            )
        if weighty is not None:
            chosen += [own[name] for name in weighty.all_names]
    return chosen


def damaged(source: Source, *, half: bool) -> Iterator[Fault]:
    """Yield each file of a model that is not what it was.

    Weights must have the length that their header promises. Files in the hub's cache are named
    by their checksum: SHA-256 of large ones (Git LFS), Git's own SHA-1 of small ones.
    """
    if source.path is None:
        return
    try:
        read = set(weights.read_files(source, half=half))
    except ModelError as error:
        read = set()
        yield Fault(path=source.path, text=error.detail)
    for path in weights.files(source):
        try:
            weights.header(path)
        except ModelError as error:
            text = error.detail
            if (blob := _blob(path)) is not None and _checksum(blob, like=blob.name) == blob.name:
                text = f"{path} is damaged, and the hub has it like this. Choose another model."
            yield Fault(path=path, text=text, stray=path not in read)
    for path in [] if source.single_file else sorted(source.path.rglob("*")):
        if (blob := _blob(path)) is not None and _checksum(blob, like=blob.name) != blob.name:
            text = f"{path} does not have the checksum that it was fetched with."
            yield Fault(path=path, text=f"{text} {files.fetch_again(path)}")


def hashed(source: Source, *, half: bool) -> bool:
    """Tell whether the weights of a model can be held against checksums, and not just lengths."""
    read = weights.read_files(source, half=half)
    return bool(read) and all(_blob(path) is not None for path in read)


def repository(cache_dir: Path, name: str) -> Path:
    """Return the folder that the cache keeps a hub model in."""
    return cache_dir / (catalog.HUB + name.replace("/", "--"))


def discard_damaged(source: Source, *, half: bool) -> list[Path]:
    """Remove the damaged files of a model, so that fetching it again fetches them."""
    found = list(dict.fromkeys(fault.path for fault in damaged(source, half=half)))
    for path in found:
        path.resolve().unlink(missing_ok=True)
        path.unlink(missing_ok=True)
    return found


def _folder(row: RemoteFile) -> str:
    return row.path.rpartition("/")[0]


def _blob(path: Path) -> Path | None:
    """Return the file of the hub's cache that a path leads to, if it is one with a checksum."""
    try:
        blob = path.resolve(strict=True)
    except (OSError, RuntimeError):  # A broken link, or one that leads to itself.
        return None
    known = blob.parent.name == "blobs" and CHECKSUM.fullmatch(blob.name) and blob.is_file()
    return blob if known else None


def _checksum(path: Path, *, like: str) -> str:
    """Return a file's checksum, of the kind that ``like`` is one of."""
    if len(like) == SHA256_DIGITS:
        digest = hashlib.sha256()
    else:
        digest = hashlib.sha1(usedforsecurity=False)
        digest.update(b"blob %d\0" % path.stat().st_size)
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _remote(sibling: Any) -> RemoteFile:
    large = sibling.lfs.sha256 if sibling.lfs else ""
    return RemoteFile(path=sibling.rfilename, size=sibling.size or 0, sha256=large)


def _fetch_large(name: str, row: RemoteFile, revision: str | None, cache_dir: Path) -> None:
    """Put a large file where the client looks for it, going on with what is there of it.

    The client itself begins anew whenever its process ended.

    Raises:
        ModelError: what came is not what the hub promised; it is not kept.

    """
    blob = repository(cache_dir, name) / "blobs" / row.sha256
    part = blob.with_name(blob.name + PART)
    blob.parent.mkdir(parents=True, exist_ok=True)
    part.touch()
    with part.open("r+b") as file:
        _sole(file)
        if blob.exists():
            part.unlink(missing_ok=True)
            return
        here = file.seek(0, os.SEEK_END)
        if here > row.size:
            here = file.truncate(file.seek(0))
        if here < row.size:
            url = hf_hub_url(name, row.path, revision=revision)
            http_get(
                url, file, resume_size=here, headers=build_hf_headers(), expected_size=row.size
            )
    if _checksum(part, like=row.sha256) != row.sha256:
        part.unlink()
        raise ModelError(
            f"{row.path} arrived with another checksum than the hub has for it, and is not kept. "
            f"Fetch it again: {commands.models('pull', name, cache_dir=cache_dir)}"
        )
    part.replace(blob)


def _sole(file: IO[bytes]) -> None:
    """Wait until no other process fetches the same file."""
    if sys.platform != "win32":
        fcntl.flock(file, fcntl.LOCK_EX)


def _held(name: str, cache_dir: Path) -> int:
    """Return the bytes of a model that are here, parts of files included."""
    sizes = []
    for path in repository(cache_dir, name).glob("blobs/*"):
        if path.suffix not in {"", PART}:  # What the client left behind, and will not use.
            continue
        with suppress(FileNotFoundError):  # The client renames what is whole.
            sizes.append(path.stat().st_size)
    return sum(sizes)


def _demand_room(name: str, chosen: Sequence[RemoteFile], cache_dir: Path) -> None:
    need = max(sum(row.size for row in chosen) - _held(name, cache_dir), 0)
    free = shutil.disk_usage(cache_dir).free
    if need and need + MARGIN > free:
        raise DiskFull(no_room(name, cache_dir, f"it needs {gigabytes(need)} more", free))
