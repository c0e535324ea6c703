"""Finished images on the disk: all of a job's or none of them."""

import errno
import io
import json
import os
import shutil
import zipfile
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial, wraps
from pathlib import Path
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

import structlog

from service.errors import ResultDamaged, ServiceError, StorageFull, StorageUnavailable
from service.images.encoded import Encoded
from service.jobs.results import container
from service.jobs.results.base import (
    GRACE_SECONDS,
    JOB_ID,
    KEEP_FREE,
    RETRY_SECONDS,
    ResultStore,
    Sizes,
    demand_id,
    demand_index,
    full,
    removed,
)
from service.jobs.results.container import ABOUT
from service.jobs.store.clock import SteadyClock
from service.system.executors import STORAGE

log = structlog.get_logger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

SUFFIX: Final = ".zip"
TEMPORARY: Final = ".part"
NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True, kw_only=True)
class _Kept:
    """One file, as the sweep sees it."""

    job_id: str
    path: Path
    size: int
    age: float


def _threaded(
    method: Callable[Concatenate["FileResults", P], T],
) -> Callable[Concatenate["FileResults", P], Coroutine[Any, Any, T]]:
    """Let a method that blocks run on a thread of ``executors.STORAGE``."""

    @wraps(method)
    async def run(self: "FileResults", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await STORAGE.run(method, self, *args, **kwargs)

    return run


class FileResults(ResultStore):
    """One file per job in a folder of our own: a ZIP without compression, which any tool opens.

    It holds ``0``, ``1``, ... and ``about.json``, is written next to its place and renamed into
    it, so that it is whole or not there, and its checksums tell later damage.
    """

    def __init__(
        self,
        folder: Path,
        *,
        keep_free: int = KEEP_FREE,
        grace_seconds: float = GRACE_SECONDS,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.folder = folder
        self._keep_free = keep_free
        self._grace = grace_seconds
        self._clock = clock or SteadyClock()
        self.removed_bytes = 0
        self.damaged = 0

    @_threaded
    def open(self) -> None:
        try:
            # One by one: the mode would not be that of a parent that is made on the way.
            self.folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.folder.mkdir(mode=0o700, exist_ok=True)
            for path in self.folder.glob(f"*{TEMPORARY}"):
                path.unlink(missing_ok=True)
        except OSError as error:
            raise self._failed(error) from error

    @_threaded
    def write(self, job_id: str, images: Sequence[Encoded], metadata: Mapping[str, Any]) -> int:
        place = self._path(job_id)
        content = _packed(images, metadata)
        temporary = place.with_suffix(TEMPORARY)
        try:
            if self.free_bytes < len(content) + self._keep_free:
                raise self._full()
            self._write(temporary, content)
            temporary.replace(place)
            self._sync_folder()
        except OSError as error:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise self._failed(error) from error
        return len(content)

    async def read(
        self, job_id: str, index: int = 0, sizes: Sizes = (), *, owner: str = ""
    ) -> Encoded:
        read = partial(self._read, job_id, lambda file: _image(file, index, sizes))
        return await STORAGE.run_for(owner, read)

    async def metadata(self, job_id: str) -> Any:
        return await STORAGE.run(self._read, job_id, lambda file: container.about(file)["metadata"])

    @_threaded
    def delete(self, job_id: str) -> bool:
        path = self._path(job_id)
        try:
            size = path.lstat().st_size
            path.unlink()
        except FileNotFoundError:
            return False
        except (IsADirectoryError, PermissionError) as error:
            # One file that cannot go must not keep all others.
            log.warning("result_not_removed", path=str(path), error=str(error))
            return False
        except OSError as error:
            raise self._failed(error) from error
        self.removed_bytes += size
        return True

    @_threaded
    def sweep(
        self, max_age_seconds: float, max_bytes: int, inputs: Mapping[str, int] | None = None
    ) -> list[str]:
        others = inputs or {}
        kept = self._kept()
        used = sum(one.size for one in kept) + sum(others.values())
        gone = []
        for one in kept:
            if one.age < self._grace or (one.age <= max_age_seconds and used <= max_bytes):
                continue
            if self._remove(one):
                used -= one.size + others.get(one.job_id, 0)
                gone.append(one.job_id)
        if gone:
            log.info("results_swept", jobs=len(gone), bytes_left=used)
        return gone

    @_threaded
    def clean(self, known: Collection[str]) -> list[str]:
        unknown = [
            one for one in self._kept() if one.job_id not in known and one.age >= self._grace
        ]
        return [one.job_id for one in unknown if self._remove(one)]

    @_threaded
    def used_bytes(self) -> int:
        return sum(one.size for one in self._kept())

    @_threaded
    def room_bytes(self) -> int:
        try:
            return self.free_bytes - self._keep_free
        except OSError as error:
            raise self._failed(error) from error

    @property
    def free_bytes(self) -> int:
        """What their disk still has for this user."""
        return shutil.disk_usage(self.folder).free

    def _path(self, job_id: str) -> Path:
        demand_id(job_id)
        return self.folder / f"{job_id}{SUFFIX}"

    def _write(self, path: Path, content: bytes) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_NOFOLLOW", 0)
        file = os.open(path, flags, 0o600)
        try:
            left = memoryview(content)
            while left:
                left = left[os.write(file, left) :]
            os.fsync(file)
        finally:
            os.close(file)
        # Ages are told by the steady clock, so the file is stamped by it, too.
        now = self._clock()
        os.utime(path, (now, now))

    def _sync_folder(self) -> None:
        """Make a rename outlive a power cut; Windows has no such call and does it by itself."""
        if os.name == "nt":
            return
        folder = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _read(self, job_id: str, part: Callable[[zipfile.ZipFile], T]) -> T:
        path = self._path(job_id)
        try:
            with container.opened(path) as file:
                return part(file)
        except FileNotFoundError as error:
            raise removed() from error
        except OSError as error:
            raise self._failed(error) from error
        except container.DAMAGE as error:
            self.damaged += 1
            log.error("result_damaged", path=str(path), error=str(error))  # noqa: TRY400 - a known case
            raise ResultDamaged(
                "The stored images of the job are damaged; send the request again."
            ) from error

    def _kept(self) -> list[_Kept]:
        """Return what is there, the oldest first."""
        now = self._clock()
        kept = []
        try:
            with os.scandir(self.folder) as entries:
                for entry in entries:
                    name, suffix = os.path.splitext(entry.name)  # noqa: PTH122 - of a bare name
                    if suffix != SUFFIX or not JOB_ID.fullmatch(name):
                        continue  # Not ours: somebody else put it here.
                    with suppress(FileNotFoundError):  # Removed meanwhile.
                        found = entry.stat(follow_symlinks=False)
                        size, age = found.st_size, now - found.st_mtime
                        path = Path(entry.path)
                        kept.append(_Kept(job_id=name, path=path, size=size, age=age))
        except OSError as error:
            raise self._failed(error) from error
        return sorted(kept, key=lambda one: (-one.age, one.job_id))

    def _remove(self, one: _Kept) -> bool:
        try:
            one.path.unlink()
        except FileNotFoundError:
            return False
        except OSError as error:
            # One file that cannot go must not keep all others.
            log.warning("result_not_removed", path=str(one.path), error=str(error))
            return False
        self.removed_bytes += one.size
        return True

    def _full(self) -> StorageFull:
        log.error("storage_full", path=str(self.folder))
        return full()

    def _failed(self, error: OSError) -> ServiceError:
        if error.errno in NO_ROOM:
            return self._full()
        log.error("storage_failed", path=str(self.folder), error=str(error))
        return StorageUnavailable(
            f"The folder of finished images ({self.folder.name}) cannot be used"
            f" ({error.strerror or error}); check that it is there and writable.",
            retry_after=RETRY_SECONDS,
        )


def _packed(images: Sequence[Encoded], metadata: Mapping[str, Any]) -> bytes:
    """Return the file; the same images make the same bytes."""
    about = {"media_types": [one.media_type for one in images], "metadata": metadata}
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as packed:
        for index, one in enumerate(images):
            packed.writestr(zipfile.ZipInfo(f"{index}"), one.data)
        packed.writestr(zipfile.ZipInfo(ABOUT), json.dumps(about))
    return file.getvalue()


def _image(file: zipfile.ZipFile, index: int, sizes: Sizes) -> Encoded:
    media_types = container.about(file)["media_types"]
    if sizes and index >= len(media_types):
        raise ValueError(f"it has {len(media_types)} images")
    demand_index(index, len(media_types))
    data, media_type = file.read(f"{index}"), media_types[index]
    container.demand_image(data, media_type, sizes)
    return Encoded(data=data, media_type=media_type)
