"""Input images on the disk: all of a job's or none of them."""

import errno
import hashlib
import os
import secrets
import shutil
import stat
import threading
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import structlog

from service.core.outcome import UploadOutcome
from service.errors import InputLost, ServiceError, StorageFull, StorageUnavailable
from service.jobs.inputs.base import NAMES, InputStore, Receiver, Upload
from service.jobs.inputs.bounds import UploadBounds
from service.jobs.inputs.counted import Count, nothing
from service.jobs.results.base import GRACE_SECONDS, JOB_ID, KEEP_FREE, RETRY_SECONDS, demand_id
from service.jobs.store.clock import SteadyClock
from service.system.executors import STORAGE

log = structlog.get_logger(__name__)

TEMPORARY: Final = ".part"
SUFFIXES: Final = {f".{name}": name for name in NAMES}
LARGEST: Final = 2**30
"""More than the settings allow; what is larger was put there by somebody else."""

NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
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
        self._keep_free = keep_free
        self._grace = grace_seconds
        self._clock = clock or SteadyClock()

    async def open(self) -> None:
        await STORAGE.run(self._open)

    def _open(self) -> None:
        try:
            # One by one: the mode would not be that of a parent that is made on the way.
            self.folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.folder.mkdir(mode=0o700, exist_ok=True)
            for path in self.folder.glob(f"*{TEMPORARY}"):
                path.unlink(missing_ok=True)
        except OSError as error:
            raise self.failed(error) from error

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
                self._sync_folder()
        except BaseException as error:
            for place in moved:
                with suppress(OSError):
                    place.unlink(missing_ok=True)
            if isinstance(error, OSError):
                raise self.failed(error) from error
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
            raise self.failed(error) from error

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
                raise self.failed(error) from error
            found = True
        return found

    async def clean(self, known: Collection[str]) -> list[str]:
        return await STORAGE.run(self._clean, known)

    def _clean(self, known: Collection[str]) -> list[str]:
        kept, oldest = self._kept(), self._clock() - self._grace
        young = {job_id for job_id, _, changed in kept if changed > oldest}
        gone = {job_id for job_id, *_ in kept} - young - {*known}
        return [job_id for job_id in sorted(gone) if self._delete(job_id)]

    async def sizes(self) -> Mapping[str, int]:
        return await STORAGE.run(self._sizes)

    def _sizes(self) -> dict[str, int]:
        sizes: dict[str, int] = {}
        for job_id, size, _ in self._kept():
            sizes[job_id] = sizes.get(job_id, 0) + size
        return sizes

    @property
    def receiving_bytes(self) -> int:
        return self.bounds.held

    def _kept(self) -> list[tuple[str, int, float]]:
        """Return the job, the bytes and the time of each image."""
        kept = []
        try:
            with os.scandir(self.folder) as entries:
                for entry in entries:
                    job_id, suffix = os.path.splitext(entry.name)  # noqa: PTH122 - of a bare name
                    if suffix not in SUFFIXES or not JOB_ID.fullmatch(job_id):
                        continue  # Not ours, or not kept.
                    with suppress(FileNotFoundError):  # Removed meanwhile.
                        found = entry.stat(follow_symlinks=False)
                        kept.append((job_id, found.st_size, found.st_mtime))
        except OSError as error:
            raise self.failed(error) from error
        return kept

    def _path(self, job_id: str, name: str) -> Path:
        demand_id(job_id)
        if name not in NAMES:
            raise ValueError(f"{name!r} is no name of an input image")
        return self.folder / f"{job_id}.{name}"

    def demand_room(self, size: int) -> None:
        """Raise StorageFull where the disk cannot take ``size`` bytes more."""
        if shutil.disk_usage(self.folder).free < size + self._keep_free:
            raise self._full()

    def _sync_folder(self) -> None:
        """Make a rename outlive a power cut; Windows has no such call and does it by itself."""
        if os.name == "nt":
            return
        folder = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _full(self) -> StorageFull:
        log.error("storage_full", path=str(self.folder))
        return StorageFull(
            "There is no room left for input images. The operator can make room on the disk, or"
            " let images be kept for less time or in fewer bytes.",
            retry_after=RETRY_SECONDS,
        )

    def failed(self, error: OSError) -> ServiceError:
        """Return what is raised where the disk raises ``error``."""
        if error.errno in NO_ROOM:
            return self._full()
        log.error("storage_failed", path=str(self.folder), error=str(error))
        return StorageUnavailable(
            f"The folder of input images ({self.folder.name}) cannot be used"
            f" ({error.strerror or error}); check that it is there and writable.",
            retry_after=RETRY_SECONDS,
        )


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
            try:
                self._store.demand_room(len(data))
                _write(self._opened(), data)
            except OSError as error:
                raise self._store.failed(error) from error
            self._digest.update(data)

    def done(self) -> Upload:
        with self._lock:
            self._demand_open()
            try:
                self._opened()  # An empty one is a file, too.
                self._close()
            except OSError as error:
                raise self._store.failed(error) from error
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
        try:
            return self._path.read_bytes()
        except OSError as error:
            raise self._store.failed(error) from error

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


def _write(file: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(file, left) :]


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
