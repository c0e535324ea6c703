"""Folder of files that are named after their jobs: its room, its errors and what is in it."""

import errno
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from service.errors import ServiceError, StorageFull, StorageUnavailable
from service.jobs.results.base import JOB_ID, KEEP_FREE, RETRY_SECONDS, full

log = structlog.get_logger(__name__)

TEMPORARY: Final = ".part"
NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True, kw_only=True)
class JobFile:
    """A file of a job, as it is on the disk."""

    job_id: str
    path: Path
    size: int
    changed: float
    """When it was stamped, by the steady clock."""


class JobFolder:
    """A folder of our own; what ends in ``.part`` is kept by no job."""

    def __init__(self, path: Path, content: str, keep_free: int = KEEP_FREE) -> None:
        """Set up; ``content`` is what errors call the files."""
        self.path, self.keep_free = path, keep_free
        self._content = content

    def open(self) -> None:
        """Make the folder, and remove what a crash left half-written."""
        with self.guarded():
            # One by one: the mode would not be that of a parent that is made on the way.
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.path.mkdir(mode=0o700, exist_ok=True)
            for path in self.path.glob(f"*{TEMPORARY}"):
                path.unlink(missing_ok=True)

    @property
    def free_bytes(self) -> int:
        """What the disk still has for this user."""
        return shutil.disk_usage(self.path).free

    def files(self, suffixes: Collection[str]) -> list[JobFile]:
        """Return the files of jobs with one of these suffixes."""
        found = []
        with self.guarded(), os.scandir(self.path) as entries:
            for entry in entries:
                job_id, suffix = os.path.splitext(entry.name)  # noqa: PTH122 - of a bare name
                if suffix not in suffixes or not JOB_ID.fullmatch(job_id):
                    continue  # Not ours, or not kept.
                with suppress(FileNotFoundError):  # Removed meanwhile.
                    about = entry.stat(follow_symlinks=False)
                    size, changed, path = about.st_size, about.st_mtime, Path(entry.path)
                    found.append(JobFile(job_id=job_id, path=path, size=size, changed=changed))
        return found

    def sync(self) -> None:
        """Make a rename outlive a power cut; Windows has no such call and does it by itself."""
        if os.name == "nt":
            return
        folder = os.open(self.path, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Raise what the disk raises as an error of ours."""
        try:
            yield
        except OSError as error:
            raise self.failed(error) from error

    def failed(self, error: OSError) -> ServiceError:
        """Return what is raised where the disk raises ``error``."""
        if error.errno in NO_ROOM:
            return self.full()
        log.error("storage_failed", path=str(self.path), error=str(error))
        return StorageUnavailable(
            f"The folder of {self._content} ({self.path.name}) cannot be used"
            f" ({error.strerror or error}); check that it is there and writable.",
            retry_after=RETRY_SECONDS,
        )

    def full(self) -> StorageFull:
        """Return what is raised where there is no room, and log it."""
        log.error("storage_full", path=str(self.path))
        return full(self._content)


def write_all(file: int, data: bytes) -> None:
    """Write ``data``, whole, to an open file."""
    left = memoryview(data)
    while left:
        left = left[os.write(file, left) :]
