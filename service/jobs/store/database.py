"""One SQLite file, one thread that uses it, and what is said when it cannot."""

import asyncio
import errno
import os
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

import structlog

from service.errors import StoreError, StoreFull, StoreInUse, StoreUnavailable
from service.jobs.store.file_lock import FileLock
from service.jobs.store.schema import DAMAGED, connect, primary_code
from service.telemetry.metrics import Metrics

log = structlog.get_logger(__name__)

T = TypeVar("T")

LOCKED: Final = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
REASONS: Final = {
    "locked": "is locked by another program; end what has it open",
    "full": "cannot grow, for its disk is full; make room there",
    "damaged": DAMAGED,
    "forbidden": "cannot be written; make it and its folder writable for the service's user",
    "failing": "could not be read or written; check the room and health of its disk",
    "replaced": "was deleted, moved or replaced while it was in use; put it back or restart",
    "unreachable": "cannot be opened; check the folder, its owner and its rights",
    "other": "could not be used",
}
"""What follows the file's name: what is wrong, and what cures it; by its name in the metrics."""

CODES: Final = {
    sqlite3.SQLITE_BUSY: "locked",
    sqlite3.SQLITE_LOCKED: "locked",
    sqlite3.SQLITE_FULL: "full",
    sqlite3.SQLITE_CORRUPT: "damaged",
    sqlite3.SQLITE_NOTADB: "damaged",
    sqlite3.SQLITE_READONLY: "forbidden",
    sqlite3.SQLITE_PERM: "forbidden",
    sqlite3.SQLITE_CANTOPEN: "forbidden",
    sqlite3.SQLITE_IOERR: "failing",
}

DISK_SECONDS: Final = 30.0
"""After which a client may try again where a person has to make room first."""


class Database:
    """The file belongs to this process while it is open; all work on it is done in one thread.

    So no query holds up the event loop, and none meets another half-way.
    """

    def __init__(self, path: Path, *, busy_seconds: float, metrics: Metrics | None = None) -> None:
        self.path = path
        self._metrics = metrics
        self._busy_seconds = busy_seconds
        self._claim = FileLock(path.with_name(f"{path.name}.lock"))
        self._identity = (0, 0)
        self._connection: sqlite3.Connection | None = None
        self._thread: ThreadPoolExecutor | None = None

    async def open(self) -> None:
        """Open the file, made if it is not there.

        Raises:
            StoreError: it cannot be used, with the cure.

        """
        if self._thread is not None:
            return
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="job-store")
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._open)
        except BaseException:
            await self.close()
            raise
        log.info("store_opened", path=str(self.path))

    async def close(self) -> None:
        """Finish what was asked for, and close the file."""
        thread, self._thread = self._thread, None
        if thread is not None:
            await asyncio.get_running_loop().run_in_executor(thread, self._close)
            thread.shutdown()

    async def run(self, work: Callable[[sqlite3.Connection], T], *, changes: bool = False) -> T:
        """Do ``work`` in the thread, after all that was asked for before.

        ``changes`` says that it changes something, which is timed.

        Raises:
            StoreUnavailable: the file cannot be used now; nothing was changed.

        """
        if self._thread is None:
            raise StoreUnavailable("The job store is closed; the service is starting or stopping.")
        asked = time.monotonic()
        made = await asyncio.get_running_loop().run_in_executor(
            self._thread, self._work, work, asked
        )
        if changes and self._metrics is not None:
            self._metrics.store_commit.observe(time.monotonic() - asked)
        return made

    def _open(self) -> None:
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not self._claim.take(self._busy_seconds):
                raise StoreInUse(
                    f"{self.path} is in use by another process of the service, and two would run"
                    " every job twice. Stop that one, or name another file."
                )
            if self._claim.marked and self.path.exists() and not self.path.stat().st_size:
                raise StoreError(f"{self.path} {DAMAGED} (it is empty, and was not before).")
            self._connection = connect(self.path, self._busy_seconds)
            self._claim.mark()
            self._identity = self._identify()
        except (OSError, sqlite3.Error) as error:
            reason = _reason(error)
            kind = StoreFull if reason == "full" else StoreError
            raise kind(f"{self.path} {REASONS[reason]} ({error}).") from error

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
        self._claim.release()

    def _work(self, work: Callable[[sqlite3.Connection], T], asked: float) -> T:
        connection = self._connection
        if connection is None:
            raise StoreUnavailable("The job store is closed.")
        # Those who waited behind somebody's wait for the lock do not wait as long once more.
        patience = max(0.0, self._busy_seconds - (time.monotonic() - asked))
        try:
            if self._identify() != self._identity:
                raise FileNotFoundError(f"{self.path} is not the file that was opened")
            connection.execute(f"PRAGMA busy_timeout = {patience * 1000:.0f}")
            return work(connection)
        except (sqlite3.IntegrityError, sqlite3.ProgrammingError):
            raise  # A mistake of ours, which no operator can cure.
        except (OSError, sqlite3.DatabaseError) as error:
            raise self._unavailable(error) from error

    def _identify(self) -> tuple[int, int]:
        """Tell the file from one that took its place: writing to a deleted file never fails."""
        found = os.stat(self.path)  # noqa: PTH116 - 2 us; Path.stat is no clearer here
        return found.st_dev, found.st_ino

    def _unavailable(self, error: OSError | sqlite3.Error) -> StoreUnavailable:
        name = _reason(error)
        reason = REASONS[name]
        if self._metrics is not None:
            self._metrics.store_failures.labels(name).inc()
        log.error("store_failed", path=str(self.path), reason=reason, error=str(error))
        # Clients learn the name of the file, and the log its place.
        busy = isinstance(error, sqlite3.Error) and primary_code(error) in LOCKED
        return StoreUnavailable(
            f"The job store ({self.path.name}) {reason}. Nothing was changed.",
            retry_after=max(1.0, self._busy_seconds) if busy else DISK_SECONDS,
        )


def _reason(error: OSError | sqlite3.Error) -> str:
    """Return which of REASONS it is."""
    if isinstance(error, sqlite3.Error):
        return CODES.get(primary_code(error), "other")
    if error.errno == errno.ENOSPC:
        return "full"
    return "replaced" if isinstance(error, FileNotFoundError) else "unreachable"
