"""The right to a file that one process has at a time."""

import os
import sys
import time
from pathlib import Path
from typing import Final

if sys.platform != "win32":
    import fcntl

POLL_SECONDS: Final = 0.05
MARK: Final = b"in use\n"


class FileLock:
    """A lock file; the kernel lets go of it when its process ends, however it ends.

    Two services with one job store would run every job twice. On Windows nothing is locked.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: int | None = None

    def take(self, seconds: float = 0.0) -> bool:
        """Wait up to ``seconds`` for the claim, and return whether it was had.

        Raises:
            OSError: the lock file cannot be opened.

        """
        if self._file is not None:
            return True
        file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        until = time.monotonic() + seconds
        while not _locked(file):
            if time.monotonic() >= until:
                os.close(file)
                return False
            time.sleep(POLL_SECONDS)
        self._file = file
        return True

    @property
    def marked(self) -> bool:
        """Whether an owner of the claim has left its mark."""
        return self._file is not None and os.fstat(self._file).st_size > 0

    def mark(self) -> None:
        """Leave a mark for later owners."""
        if self._file is not None and not self.marked:
            os.write(self._file, MARK)
            os.fsync(self._file)

    def release(self) -> None:
        """Give the claim back; the file stays, for removing it would race with the next owner."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _locked(file: int) -> bool:
    if sys.platform == "win32":
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
