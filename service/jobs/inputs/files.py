"""Input images on the disk: all of a job's or none of them."""

import errno
import hashlib
import os
import secrets
import stat
import threading
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import structlog

from service.core.outcome import UploadOutcome
from service.errors import InputLost, ServiceError
from service.jobs.folder import TEMPORARY, JobFolder, write_all
from service.jobs.inputs.base import NAMES, InputStore, Receiver, Upload
from service.jobs.inputs.bounds import UploadBounds
from service.jobs.inputs.counted import Count, nothing
from service.jobs.results.base import GRACE_SECONDS, KEEP_FREE, demand_id
from service.jobs.store.clock import SteadyClock
from service.system.executors import STORAGE

log = structlog.get_logger(__name__)

SUFFIXES: Final = {f".{name}": name for name in NAMES}
LARGEST: Final = 2**30
"""More than the settings allow; what is larger was put there by somebody else."""

ONLY_FILES: Final = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


class FileInputs(InputStore):
    """One file per image in a folder of our own, named after its job.

    What no job keeps ends in ``.part``, and is removed by the next start at the latest.
    """

    def __init__(
        self,
        folder: Path,
        bounds: UploadBounds,
        *,
        keep_free: int = KEEP_FREE,
        grace_seconds: float = GRACE_SECONDS,
        clock: Callable[[], float] | None = None,
        count: Count = nothing,
    ) -> None:
        self.folder, self.bounds = folder, bounds
        self.count = count
        self.disk = JobFolder(folder, "input images", keep_free)
        self._grace = grace_seconds
        self._clock = clock or SteadyClock()

    async def open(self) -> None:
        await STORAGE.run(self.disk.open)

    def receive(self, owner: str) -> Receiver:
        return _FileReceiver(self, owner)

    async def keep(
        self, job_id: str, uploads: Mapping[str, Upload], *, durable: bool = True
    ) -> None:
        await STORAGE.run(self._keep, job_id, uploads, durable=durable)

    def _keep(self, job_id: str, uploads: Mapping[str, Upload], *, durable: bool) -> None:
        moved: list[Path] = []
        try:
            for name, upload in uploads.items():
                place = self._path(job_id, name)
                _ours(upload).move(place, self._clock(), durable=durable)
                moved.append(place)
            if durable:
                self.disk.sync()
        except BaseException as error:
            for place in moved:
                with suppress(OSError):
                    place.unlink(missing_ok=True)
            if isinstance(error, OSError):
                raise self.disk.failed(error) from error
            raise
        for _ in moved:
            self.count(UploadOutcome.KEPT)

    def read(self, job_id: str, name: str) -> bytes:
        try:
            descriptor = os.open(self._path(job_id, name), os.O_RDONLY | ONLY_FILES)
            with open(descriptor, "rb") as file:  # noqa: PTH123 - opened by its flags
                found = os.fstat(descriptor)
                if not stat.S_ISREG(found.st_mode) or found.st_size > LARGEST:
                    raise lost(name)
                return file.read(LARGEST)
        except OSError as error:
            if error.errno in {errno.ENOENT, errno.ELOOP}:
                raise lost(name) from error
            raise self.disk.failed(error) from error

    async def delete(self, job_id: str) -> bool:
        demand_id(job_id)
        return await STORAGE.run(self._delete, job_id)

    def _delete(self, job_id: str) -> bool:
        found = False
        for name in NAMES:
            path = self._path(job_id, name)
            try:
                path.unlink()
            except FileNotFoundError:
                continue
            except (IsADirectoryError, PermissionError) as error:
                # One file that cannot go must not keep all others.
                log.warning("input_not_removed", path=str(path), error=str(error))
                continue
            except OSError as error:
                raise self.disk.failed(error) from error
            found = True
        return found

    async def clean(self, known: Collection[str]) -> list[str]:
        return await STORAGE.run(self._clean, known)

    def _clean(self, known: Collection[str]) -> list[str]:
        kept, oldest = self.disk.files(SUFFIXES), self._clock() - self._grace
        young = {one.job_id for one in kept if one.changed > oldest}
        gone = {one.job_id for one in kept} - young - {*known}
        return [job_id for job_id in sorted(gone) if self._delete(job_id)]

    async def sizes(self) -> Mapping[str, int]:
        return await STORAGE.run(self._sizes)

    def _sizes(self) -> dict[str, int]:
        sizes: dict[str, int] = {}
        for one in self.disk.files(SUFFIXES):
            sizes[one.job_id] = sizes.get(one.job_id, 0) + one.size
        return sizes

    @property
    def receiving_bytes(self) -> int:
        return self.bounds.held

    def _path(self, job_id: str, name: str) -> Path:
        demand_id(job_id)
        if name not in NAMES:
            raise ValueError(f"{name!r} is no name of an input image")
        return self.folder / f"{job_id}.{name}"

    def demand_room(self, size: int) -> None:
        """Raise StorageFull where the disk cannot take ``size`` bytes more."""
        if self.disk.free_bytes < size + self.disk.keep_free:
            raise self.disk.full()


class _FileReceiver(Receiver):
    """An image on its way into a file; its lock lets it be discarded while it is written."""

    def __init__(self, store: FileInputs, owner: str) -> None:
        try:
            store.bounds.take(owner, 0)
        except ServiceError:
            store.count(UploadOutcome.REFUSED)
            raise
        self._store, self._owner = store, owner
        self._path = store.folder / f"{secrets.token_hex(16)}{TEMPORARY}"
        self._digest = hashlib.sha256()
        self._size = 0
        self._file: int | None = None
        self._lock = threading.Lock()
        self._closed = False
        self._outcome = UploadOutcome.BROKEN
        """What is counted where it is discarded."""

    def write(self, data: bytes) -> None:
        with self._lock:
            self._demand_open()
            try:
                self._store.bounds.take(self._owner, len(data))
            except ServiceError:
                self._outcome = UploadOutcome.REFUSED
                raise
            self._size += len(data)
            with self._store.disk.guarded():
                self._store.demand_room(len(data))
                write_all(self._opened(), data)
            self._digest.update(data)

    def done(self) -> Upload:
        with self._lock:
            self._demand_open()
            with self._store.disk.guarded():
                self._opened()  # An empty one is a file, too.
                self._close()
            self._closed = True
        self._store.count(UploadOutcome.RECEIVED)
        digest = self._digest.hexdigest()
        return _FileUpload(self._store, self._owner, self._path, digest, self._size)

    def discard(self) -> None:
        if not self._closed:
            in_background(self._discard)

    def _discard(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
            with suppress(OSError):
                self._close()
            remove(self._path)
        # Counted first: whoever sees the room that is free again sees why it is.
        self._store.count(self._outcome)
        self._store.bounds.give_back(self._owner, self._size)

    def _demand_open(self) -> None:
        if self._closed:
            raise RuntimeError("the upload is over")

    def _opened(self) -> int:
        if self._file is None:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | ONLY_FILES
            self._file = os.open(self._path, flags, 0o600)
        return self._file

    def _close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            os.close(file)


class _FileUpload(Upload):
    """An image in a file that no job has."""

    def __init__(self, store: FileInputs, owner: str, path: Path, digest: str, size: int) -> None:
        super().__init__(digest, size)
        self._store, self._owner, self._path = store, owner, path

    def read(self) -> bytes:
        with self._store.disk.guarded():
            return self._path.read_bytes()

    def move(self, place: Path, now: float, *, durable: bool) -> None:
        """Become the file of a job, which outlives a power cut once its folder is synced."""
        if durable:
            file = os.open(self._path, os.O_RDWR | ONLY_FILES)
            try:
                os.fsync(file)
            finally:
                os.close(file)
        # Ages are told by the steady clock, so the file is stamped by it, too.
        os.utime(self._path, (now, now))
        os.replace(self._path, place)  # noqa: PTH105
        with self._lock:
            self._gone = True
        self._store.bounds.give_back(self._owner, self.size)

    def _remove(self) -> None:
        in_background(self._unlink)

    def _unlink(self) -> None:
        remove(self._path)
        self._store.bounds.give_back(self._owner, self.size)


def _ours(upload: Upload) -> _FileUpload:
    if not isinstance(upload, _FileUpload):
        raise TypeError("it is an upload of another store")
    return upload


def lost(name: str) -> InputLost:
    """Return what is raised for an image that is not there, or not what was sent."""
    return InputLost(f"The {name} of the job is missing or damaged; send the request again.")


def remove(path: Path) -> None:
    """Remove a file; one that cannot go is left to the next start."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        log.warning("input_not_removed", path=str(path), error=str(error))


def in_background(work: Callable[[], None]) -> None:
    """Do what may take a disk's time on a thread, where there is one."""
    try:
        STORAGE.submit("", "", work)
    except (ServiceError, RuntimeError):
        work()
