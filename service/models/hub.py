"""Models from the hub: which files, how large, fetched, resumed and checked; imports no torch."""

import errno
import hashlib
import json
import logging
import os
import re
import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import structlog
from huggingface_hub import (
    HfApi,
    constants,
    hf_hub_download,
    hf_hub_url,
    snapshot_download,
)
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
)
from huggingface_hub.file_download import http_get
from huggingface_hub.utils._headers import build_hf_headers
from huggingface_hub.utils.tqdm import disable_progress_bars
from tqdm import tqdm

from service.errors import (
    DiskFull,
    FolderUnusable,
    HubUnreachable,
    ModelError,
    ModelMissing,
    ModelUnsuitable,
    ServiceError,
)
from service.models import catalog, layout, weights
from service.models.catalog import Source

if sys.platform != "win32":
    import fcntl

log = structlog.get_logger(__name__)

SMALL: Final = (".json", ".txt", ".model")
WEIGHTS: Final = re.compile(
    r"(?:model|diffusion_pytorch_model)(?:[.-](?:fp16|\d+-of-\d+))*\.safetensors"
)
"""The plain and the half-precision files, whole or in parts; no other variant."""

SHA256_DIGITS: Final = 64
CHUNK: Final = 2**20
PART: Final = ".part"
BAR_SECONDS: Final = 0.5
LOG_SECONDS: Final = 30.0
SERVER_ERROR: Final = 500
CLIENTS: Final = frozenset(
    {"huggingface_hub", "httpx", "httpx2", "httpcore", "httpcore2", "requests"}
)
MARGIN: Final = 100 * 2**20
"""Bytes that are left on the disk beside a model."""


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """One file of a model on the hub."""

    path: str
    size: int
    sha256: str = ""
    """Of large files (Git LFS)."""


def fetch(name: str, cache_dir: Path, *, half: bool, progress: bool = False) -> Source:
    """Fetch a model, going on where an interrupted fetch stopped; return where it lies.

    With ``half`` the half-precision files are taken where there are any: half the size.

    Raises:
        ModelMissing: the hub has no such model, or not for everybody.
        HubUnreachable: it does not answer, or HF_HUB_OFFLINE forbids to ask.
        DiskFull: there is no room for it.
        ModelError: it is of another kind, or has no safetensors files.

    """
    disable_progress_bars()  # The client's own count files, not bytes.
    logging.getLogger("huggingface_hub").handlers.clear()  # Else each line comes twice, once bare.
    with _explained(name, cache_dir):
        # Some kilobytes that tell whether the gigabytes are worth fetching.
        index = Path(hf_hub_download(name, catalog.INDEX, cache_dir=cache_dir))
        layout.index_family(index.parent)
        info = HfApi().model_info(name, files_metadata=True)
        there = [_remote(sibling) for sibling in info.siblings or []]
        chosen = wanted(there, catalog.index(index.parent), half=half)
        _demand_room(name, chosen, cache_dir)
        log.info("model_download_started", model_id=name, bytes=sum(row.size for row in chosen))
        with _progress(name, chosen, cache_dir, shown=progress):
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
    there: Sequence[RemoteFile], index: dict[str, object], *, half: bool
) -> list[RemoteFile]:
    """Pick the files that loading reads, of the parts that ``model_index.json`` names.

    Raises:
        ModelError: a part has no safetensors file.

    """
    parts = {
        part
        for part, named in index.items()
        if isinstance(named, list) and named and named[-1] is not None
    }
    chosen = [row for row in there if row.path == catalog.INDEX]
    # Number formats are not mixed where the UNet decides; see layout.variant.
    halves = half and any(_is_half(row) and row.path.startswith("unet/") for row in there)
    for part in sorted(parts):
        own = [row for row in there if row.path.rpartition("/")[0] == part]
        held = [row for row in own if WEIGHTS.fullmatch(row.path.rpartition("/")[2])]
        in_half = [row for row in held if _is_half(row)]
        plain = [row for row in held if row not in in_half]
        weighty = (in_half or plain) if halves else (plain or in_half)
        if not weighty and part in catalog.WEIGHTED:
            raise ModelUnsuitable(
                f"its {part} has no .safetensors file on the hub, and pickles, which can run code "
                "when read, are not loaded. Choose another model."
            )
        chosen += [row for row in own if row.path.endswith(SMALL)] + weighty
    return chosen


def damaged(source: Source) -> Iterator[tuple[Path, str]]:
    """Yield each file of a model that is not what it was, and what is wrong with it.

    Weights must have the length that their header promises. Files in the hub's cache are named
    by their checksum: SHA-256 of large ones (Git LFS), Git's own SHA-1 of small ones.
    """
    for path in weights.files(source):
        try:
            weights.header(path)
        except ModelError as error:
            yield path, error.detail
    if source.path is None or source.single_file:
        return
    for path in sorted(source.path.rglob("*")):
        blob = path.resolve()
        if (
            blob.parent.name == "blobs"
            and blob.is_file()
            and _checksum(blob, like=blob.name) != blob.name
        ):
            yield path, f"{path} does not have the checksum that it was fetched with."


def repository(cache_dir: Path, name: str) -> Path:
    """Return the folder that the cache keeps a hub model in."""
    return cache_dir / ("models--" + name.replace("/", "--"))


def discard_damaged(source: Source) -> list[Path]:
    """Remove the damaged files of a model, so that fetching it again fetches them."""
    found = list(dict.fromkeys(path for path, _ in damaged(source)))
    for path in found:
        path.resolve().unlink(missing_ok=True)
        path.unlink(missing_ok=True)
    return found


def _is_half(row: RemoteFile) -> bool:
    return ".fp16" in row.path


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
            f"Fetch it again: sd-api models pull {name}"
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


@contextmanager
def _progress(
    name: str, chosen: Sequence[RemoteFile], cache_dir: Path, *, shown: bool
) -> Iterator[None]:
    """Show a bar of bytes, those of an earlier try included, or log them, until it is over."""
    total = sum(row.size for row in chosen)

    def here() -> int:
        return min(_held(name, cache_dir), total)

    def told() -> None:
        size = here()
        percent = 100 * size // max(total, 1)
        log.info("model_download_continues", model_id=name, bytes=size, of=total, percent=percent)

    if not shown:
        with _every(LOG_SECONDS, told):
            yield
        return
    with tqdm(
        total=total, initial=here(), unit="B", unit_scale=True,
        unit_divisor=1024, desc=name, file=sys.stderr,
    ) as bar:  # fmt: skip
        with _every(BAR_SECONDS, lambda: bar.update(here() - bar.n)):
            yield
        bar.update(total - bar.n)


@contextmanager
def _every(seconds: float, act: Callable[[], object]) -> Iterator[None]:
    """Do something again and again, in a thread of its own, until this is left."""
    over = threading.Event()

    def repeat() -> None:
        while not over.wait(seconds):
            act()

    watcher = threading.Thread(target=repeat, name="download-progress", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def _demand_room(name: str, chosen: Sequence[RemoteFile], cache_dir: Path) -> None:
    need = max(sum(row.size for row in chosen) - _held(name, cache_dir), 0)
    free = shutil.disk_usage(cache_dir).free
    if need and need + MARGIN > free:
        raise DiskFull(_no_room(name, cache_dir, f"it wants {_gigabytes(need)} more", free))


def _no_room(name: str, cache_dir: Path, need: str, free: int) -> str:
    return (
        f"MODEL_CACHE_DIR={cache_dir} has no room for {name}: {need}, and {_gigabytes(free)} are "
        "free. Make room ('sd-api models remove MODEL'), or name a folder on another disk."
    )


def _gigabytes(size: int) -> str:
    return f"{size / 2**30:.1f} GB"


@contextmanager
def _explained(name: str, cache_dir: Path) -> Iterator[None]:
    """Turn what the hub's client raises into what can be done about it."""
    try:
        yield
    except ModelError as error:
        raise type(error)(f"{name}: {error.detail}") from error
    except ServiceError:
        raise
    except GatedRepoError as error:
        raise ModelMissing(
            f"{name} wants its terms to be accepted on the hub: do so there, then set HF_TOKEN."
        ) from error
    except RepositoryNotFoundError as error:
        raise ModelMissing(
            f"the hub {constants.ENDPOINT} has no model {name}, or not for you. Check MODEL_ID, "
            "and set HF_TOKEN for a private one."
        ) from error
    except RemoteEntryNotFoundError as error:
        raise ModelUnsuitable(
            f"{name}: the hub has no {catalog.INDEX} of it, so it is no model in diffusers layout. "
            f"{layout.SUPPORTED}"
        ) from error
    except OfflineModeIsEnabled as error:
        raise HubUnreachable(f"HF_HUB_OFFLINE=1 forbids to fetch {name}.") from error
    except Exception as error:
        raise _known(error, name, cache_dir) from error


def _known(error: Exception, name: str, cache_dir: Path) -> Exception:
    causes: list[BaseException] = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None:
        causes.append(cause)
    if any(isinstance(one, OSError) and one.errno == errno.ENOSPC for one in causes):
        free = shutil.disk_usage(cache_dir).free
        return DiskFull(_no_room(name, cache_dir, "the disk is full", free))
    for one in causes:
        if isinstance(one, OSError) and one.filename is not None:
            return FolderUnusable(
                f"MODEL_CACHE_DIR={cache_dir}: {one.filename} cannot be written ({one.strerror}). "
                "Make all in there writable for the service's user, or name another folder."
            )
    if isinstance(error, HfHubHTTPError) and error.response.status_code < SERVER_ERROR:
        return ModelError(f"{name}: the hub refused it: {_first_line(error)}")
    if any(_is_of_the_network(one) for one in causes):
        return HubUnreachable(
            f"{name} is not in {cache_dir}, and {constants.ENDPOINT} does not answer "
            f"({_first_line(causes[-1])}). Check the network and proxy, set HF_ENDPOINT to a "
            "mirror, or copy the model there from a machine that has it."
        )
    return error


def _is_of_the_network(error: Any) -> bool:
    # The client's own classes changed their package between its releases. Something else than a
    # hub, a login page of the network for one, answers what the client cannot read.
    package = type(error).__module__.partition(".")[0]
    return package in CLIENTS or isinstance(
        error, (ConnectionError, TimeoutError, json.JSONDecodeError)
    )


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__
