"""Finished pictures on the disk: all of a job's or none of them."""

import errno
import io
import json
import os
import re
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import structlog

from service.errors import (
    JobExpired,
    NotFound,
    ResultDamaged,
    ServiceError,
    StorageFull,
    StorageUnavailable,
)
from service.jobs.clock import SteadyClock

log = structlog.get_logger(__name__)

T = TypeVar("T")

JOB_ID: Final = re.compile(r"[0-9a-f]{32}")
"""What ``new_id`` makes, and nothing that means more to a file system."""

SUFFIX: Final = ".zip"
TEMPORARY: Final = ".part"
ABOUT: Final = "about.json"
NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

DAMAGE: Final = (
    *(zipfile.BadZipFile, EOFError, KeyError, TypeError, ValueError),
    # A bit that turned over may ask for a password, for another compression or a longer field.
    *(RuntimeError, struct.error, zlib.error),
)
"""What zipfile and json raise over a file that is not as it was written."""

KEEP_FREE: Final = 64 * 2**20
"""Bytes that pictures leave to the job store and the log, which fail worse than a picture does."""

GRACE_SECONDS: Final = 60.0
"""Pictures this young are never removed: a client is about to fetch them."""

RETRY_SECONDS: Final = 30.0


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """One picture as the bytes of a file."""

    data: bytes
    media_type: str


@dataclass(frozen=True, kw_only=True)
class _Kept:
    """One file, as the sweep sees it."""

    job_id: str
    path: Path
    size: int
    age: float


class Results:
    """One file per job in a folder of our own: a ZIP without compression, which any tool opens.

    It holds ``0``, ``1``, ... and ``about.json``, is written beside its place and renamed into
    it, so that it is whole or not there, and its checksums tell later damage. All methods
    block, and may be called from any thread; give them to ``asyncio.to_thread``.
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
        """Of all pictures that were removed since the start."""

    def open(self) -> None:
        """Make the folder, and remove what a crash left half-written.

        Raises:
            StorageUnavailable: the folder cannot be made or written.

        """
        try:
            # One by one: the mode would not be that of a parent that is made on the way.
            self.folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.folder.mkdir(mode=0o700, exist_ok=True)
            for path in self.folder.glob(f"*{TEMPORARY}"):
                path.unlink(missing_ok=True)
        except OSError as error:
            raise self._failed(error) from error

    def write(self, job_id: str, pictures: Sequence[Encoded], metadata: Mapping[str, Any]) -> int:
        """Keep the pictures of a job, in place of earlier ones of it, and return their bytes.

        When it returns they outlive a power cut.

        Raises:
            StorageFull: there is no room, even for a part of them; nothing is left behind.
            StorageUnavailable: the folder cannot be written.

        """
        place = self._path(job_id)
        content = _packed(pictures, metadata)
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

    def read(self, job_id: str, index: int = 0) -> Encoded:
        """Return one picture of a job.

        Raises:
            NotFound: the job has fewer pictures.
            JobExpired: its pictures are not kept any more.
            ResultDamaged: the file is not what was written.
            StorageUnavailable: the folder cannot be read.

        """
        return self._read(job_id, lambda file: _picture(file, index))

    def metadata(self, job_id: str) -> Any:
        """Return what was written beside the pictures of a job; raises what ``read`` raises."""
        return self._read(job_id, lambda file: json.loads(file.read(ABOUT))["metadata"])

    def delete(self, job_id: str) -> bool:
        """Remove the pictures of a job; return whether there were any."""
        path = self._path(job_id)
        try:
            size = path.stat().st_size
            path.unlink()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise self._failed(error) from error
        self.removed_bytes += size
        return True

    def sweep(self, max_age_seconds: float, max_bytes: int) -> list[str]:
        """Remove what is too old, then the oldest of what is too much; return the job ids.

        Pictures younger than the grace period stay, whatever there is too much of.
        """
        kept = self._kept()
        used = sum(one.size for one in kept)
        removed = []
        for one in kept:
            if one.age < self._grace or (one.age <= max_age_seconds and used <= max_bytes):
                continue
            if self._remove(one):
                used -= one.size
                removed.append(one.job_id)
        if removed:
            log.info("results_swept", jobs=len(removed), bytes_left=used)
        return removed

    def clean(self, known: Collection[str]) -> list[str]:
        """Remove pictures of jobs that nobody knows; return their ids.

        For the start, with the ids of all jobs that may have pictures. Young files stay,
        for a job may have ended since those ids were read.
        """
        unknown = [
            one for one in self._kept() if one.job_id not in known and one.age >= self._grace
        ]
        return [one.job_id for one in unknown if self._remove(one)]

    @property
    def used_bytes(self) -> int:
        """What all pictures take."""
        return sum(one.size for one in self._kept())

    @property
    def free_bytes(self) -> int:
        """What their disk still has for this user."""
        return shutil.disk_usage(self.folder).free

    def _path(self, job_id: str) -> Path:
        if not JOB_ID.fullmatch(job_id):
            raise NotFound("There is no job with this id.")
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
            # Read first: what goes wrong here is the disk's, and below it is the content's.
            content = path.read_bytes()
        except FileNotFoundError as error:
            raise JobExpired("The pictures of the job were removed after their time.") from error
        except OSError as error:
            raise self._failed(error) from error
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as file:
                return part(file)
        except DAMAGE as error:
            log.error("result_damaged", path=str(path), error=str(error))  # noqa: TRY400 - a known case
            raise ResultDamaged(
                "The stored pictures of the job are damaged; send the request again."
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
                        kept.append(
                            _Kept(
                                job_id=name,
                                path=Path(entry.path),
                                size=found.st_size,
                                age=now - found.st_mtime,
                            )
                        )
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
        return StorageFull(
            "There is no room left for finished pictures. The operator can make room on the disk,"
            " or let pictures be kept for less time or in fewer bytes.",
            retry_after=RETRY_SECONDS,
        )

    def _failed(self, error: OSError) -> ServiceError:
        if error.errno in NO_ROOM:
            return self._full()
        log.error("storage_failed", path=str(self.folder), error=str(error))
        return StorageUnavailable(
            f"The folder of finished pictures ({self.folder.name}) cannot be used"
            f" ({error.strerror or error}); check that it is there and writable.",
            retry_after=RETRY_SECONDS,
        )


def _packed(pictures: Sequence[Encoded], metadata: Mapping[str, Any]) -> bytes:
    """Return the file; the same pictures make the same bytes."""
    about = {"media_types": [one.media_type for one in pictures], "metadata": metadata}
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as packed:
        for index, one in enumerate(pictures):
            packed.writestr(zipfile.ZipInfo(f"{index}"), one.data)
        packed.writestr(zipfile.ZipInfo(ABOUT), json.dumps(about))
    return file.getvalue()


def _picture(file: zipfile.ZipFile, index: int) -> Encoded:
    media_types = json.loads(file.read(ABOUT))["media_types"]
    if not 0 <= index < len(media_types):
        raise NotFound(f"The job has {len(media_types)} pictures, counted from 0.")
    return Encoded(data=file.read(f"{index}"), media_type=media_types[index])
