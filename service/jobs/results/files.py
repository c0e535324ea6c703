"""Finished images on the disk: all of a job's or none of them."""

import io
import json
import os
import zipfile
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import suppress
from functools import partial, wraps
from pathlib import Path
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

import structlog

from service.errors import ResultDamaged
from service.images.encoded import Encoded
from service.jobs.folder import TEMPORARY, JobFile, JobFolder, write_all
from service.jobs.results import container
from service.jobs.results.base import (
    GRACE_SECONDS,
    KEEP_FREE,
    ResultStore,
    Sizes,
    demand_id,
    demand_index,
    removed,
)
from service.jobs.results.container import ABOUT
from service.jobs.store.clock import SteadyClock
from service.system.executors import STORAGE

log = structlog.get_logger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

SUFFIX: Final = ".zip"


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
        self._disk = JobFolder(folder, "finished images", keep_free)
        self._grace = grace_seconds
        self._clock = clock or SteadyClock()
        self.removed_bytes = 0
        self.damaged = 0

    @_threaded
    def open(self) -> None:
        self._disk.open()

    @_threaded
    def write(self, job_id: str, images: Sequence[Encoded], metadata: Mapping[str, Any]) -> int:
        place = self._path(job_id)
        content = _packed(images, metadata)
        temporary = place.with_suffix(TEMPORARY)
        try:
            if self.free_bytes < len(content) + self._disk.keep_free:
                raise self._disk.full()
            self._write(temporary, content)
            temporary.replace(place)
            self._disk.sync()
        except OSError as error:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise self._disk.failed(error) from error
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
            raise self._disk.failed(error) from error
        self.removed_bytes += size
        return True

    @_threaded
    def sweep(
        self, max_age_seconds: float, max_bytes: int, inputs: Mapping[str, int] | None = None
    ) -> list[str]:
        others, now = inputs or {}, self._clock()
        kept = self._kept()
        used = sum(one.size for one in kept) + sum(others.values())
        gone = []
        for one in kept:
            age = now - one.changed
            if age < self._grace or (age <= max_age_seconds and used <= max_bytes):
                continue
            if self._remove(one):
                used -= one.size + others.get(one.job_id, 0)
                gone.append(one.job_id)
        if gone:
            log.info("results_swept", jobs=len(gone), bytes_left=used)
        return gone

    @_threaded
    def clean(self, known: Collection[str]) -> list[str]:
        now = self._clock()
        unknown = [
            one
            for one in self._kept()
            if one.job_id not in known and now - one.changed >= self._grace
        ]
        return [one.job_id for one in unknown if self._remove(one)]

    @_threaded
    def used_bytes(self) -> int:
        return sum(one.size for one in self._kept())

    @_threaded
    def room_bytes(self) -> int:
        with self._disk.guarded():
            return self.free_bytes - self._disk.keep_free

    @property
    def free_bytes(self) -> int:
        """What their disk still has for this user."""
        return self._disk.free_bytes

    def _path(self, job_id: str) -> Path:
        demand_id(job_id)
        return self.folder / f"{job_id}{SUFFIX}"

    def _write(self, path: Path, content: bytes) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_NOFOLLOW", 0)
        file = os.open(path, flags, 0o600)
        try:
            write_all(file, content)
            os.fsync(file)
        finally:
            os.close(file)
        # Ages are told by the steady clock, so the file is stamped by it, too.
        now = self._clock()
        os.utime(path, (now, now))

    def _read(self, job_id: str, part: Callable[[zipfile.ZipFile], T]) -> T:
        path = self._path(job_id)
        try:
            with container.opened(path) as file:
                return part(file)
        except FileNotFoundError as error:
            raise removed() from error
        except OSError as error:
            raise self._disk.failed(error) from error
        except container.DAMAGE as error:
            self.damaged += 1
            log.error("result_damaged", path=str(path), error=str(error))  # noqa: TRY400 - a known case
            raise ResultDamaged(
                "The stored images of the job are damaged; send the request again."
            ) from error

    def _kept(self) -> list[JobFile]:
        """Return what is there, the oldest first."""
        return sorted(self._disk.files({SUFFIX}), key=lambda one: (one.changed, one.job_id))

    def _remove(self, one: JobFile) -> bool:
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
