"""The tables of the job store, and how a file gets them."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final

from service.errors import StoreError

APPLICATION_ID: Final = 0x5D0B5
"""Tells our files from those of other programs."""

UNFINISHED: Final = "state IN ('queued', 'running')"
"""Written as the index has it, or SQLite does not see that the index fits."""

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        # seq is the order of acceptance. AUTOINCREMENT never gives a number out twice, and
        # unlike a time it cannot jump.
        """
        CREATE TABLE jobs (
            seq INTEGER PRIMARY KEY AUTOINCREMENT,
            id TEXT NOT NULL UNIQUE,
            key TEXT NOT NULL,
            state TEXT NOT NULL,
            request TEXT NOT NULL,
            request_id TEXT NOT NULL,
            trace_id TEXT NOT NULL,
            priority INTEGER NOT NULL,
            created_at REAL NOT NULL,
            started_at REAL,
            finished_at REAL,
            deadline_at REAL,
            attempts INTEGER NOT NULL,
            steps_done INTEGER NOT NULL,
            error_code TEXT NOT NULL,
            error_detail TEXT NOT NULL,
            metadata TEXT,
            model_version TEXT NOT NULL,
            idempotency_key TEXT,
            idempotency_digest TEXT NOT NULL,
            webhook TEXT,
            webhook_state TEXT,
            webhook_attempts INTEGER,
            webhook_status INTEGER,
            webhook_detail TEXT,
            expired_at REAL
        )
        """,
        """
        CREATE UNIQUE INDEX jobs_idempotency ON jobs (key, idempotency_key)
            WHERE idempotency_key IS NOT NULL
        """,
        "CREATE INDEX jobs_of_key ON jobs (key, seq) WHERE expired_at IS NULL",
        "CREATE INDEX jobs_of_key_in_state ON jobs (key, state, seq) WHERE expired_at IS NULL",
        f"CREATE INDEX jobs_unfinished ON jobs (seq) WHERE {UNFINISHED}",
        "CREATE INDEX jobs_finished ON jobs (finished_at) WHERE expired_at IS NULL",
        "CREATE INDEX jobs_expired ON jobs (expired_at) WHERE expired_at IS NOT NULL",
        "CREATE INDEX jobs_undelivered ON jobs (seq) WHERE webhook_state = 'pending'",
    ),
    (
        # Images that a key paid for, by minutes since 1970.
        """
        CREATE TABLE usage (
            key TEXT NOT NULL,
            minute INTEGER NOT NULL,
            images INTEGER NOT NULL,
            PRIMARY KEY (key, minute)
        ) WITHOUT ROWID
        """,
    ),
    (
        # Rows that no service wrote, as JSON: set aside, so that the rest works, and not lost.
        """
        CREATE TABLE set_aside (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            source TEXT NOT NULL,
            reason TEXT NOT NULL,
            found_at REAL NOT NULL,
            content TEXT NOT NULL
        )
        """,
    ),
    (
        "ALTER TABLE jobs ADD COLUMN epoch INTEGER NOT NULL DEFAULT 0",
        # Until then the count of attempts told them apart.
        "UPDATE jobs SET epoch = attempts",
        "ALTER TABLE jobs ADD COLUMN api TEXT NOT NULL DEFAULT 'native'",
    ),
)
"""What takes a file from the version of its index to the next one; never changed, only added to."""

DAMAGED: Final = (
    "is damaged. Nothing was deleted. Stop the service, keep a copy of the file and of those"
    " next to it that end in -wal and -shm, and restore a backup; or move all three away to"
    " start without any job"
)


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Do all of it or nothing."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # SQLite may have rolled back by itself, and a disk that fails may fail here again.
        with suppress(sqlite3.Error):
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        raise


@contextmanager
def overwriting(connection: sqlite3.Connection) -> Iterator[None]:
    """Leave no copy of what is deleted inside, in free pages or in the journal."""
    connection.execute("PRAGMA secure_delete = ON")
    try:
        yield
    finally:
        connection.execute("PRAGMA secure_delete = OFF")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def connect(path: Path, busy_seconds: float) -> sqlite3.Connection:
    """Open the file, checked, and with the tables of this version.

    Raises:
        StoreError: the file is damaged, another program's, or of a newer version.
        sqlite3.Error: it cannot be opened, read or written.
        OSError: the same of its folder.

    """
    # Prompts are private: SQLite would ask the umask, and gives its other files these rights.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    journal = path.with_name(f"{path.name}-wal")
    if not path.stat().st_size and journal.exists() and journal.stat().st_size:
        # A file of ours is never empty once it has a journal, and SQLite would delete that.
        raise StoreError(f"{path} {DAMAGED} (it is empty, and its journal is not).")
    with closing(_unchanging(path, busy_seconds)) as reader:
        _check(reader, path)
    connection = sqlite3.connect(path, timeout=busy_seconds, isolation_level=None)
    # Bytes that are no UTF-8 would fail each query that meets them; so they can be told.
    connection.text_factory = lambda content: content.decode("utf-8", "surrogateescape")
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        # NORMAL would lose the last commits with the power; an accepted job is never lost.
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA journal_size_limit = 16777216")
        _migrate(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _unchanging(path: Path, busy_seconds: float) -> sqlite3.Connection:
    """Open the file to look at it: the last writer to close it would move its journal into it."""
    address = f"{path.absolute().as_uri()}?mode=ro"
    return sqlite3.connect(address, timeout=busy_seconds, isolation_level=None, uri=True)


def _check(connection: sqlite3.Connection, path: Path) -> None:
    """Raise StoreError unless the file is whole and ours."""
    try:
        found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        application = connection.execute("PRAGMA application_id").fetchone()[0]
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    except sqlite3.DatabaseError as error:
        if primary_code(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise StoreError(f"{path} {DAMAGED} ({error}).") from error
        raise
    if found != "ok":
        raise StoreError(f"{path} {DAMAGED} ({found}).")
    if application != APPLICATION_ID and (application or version or tables):
        raise StoreError(f"{path} is a database of another program; name another file.")
    if version > len(MIGRATIONS):
        raise StoreError(
            f"{path} was written by a newer version of the service (format {version}; this one"
            f" knows {len(MIGRATIONS)}). Start that version again, or name another file."
        )


def _migrate(connection: sqlite3.Connection) -> None:
    """Bring the tables up to this version, each step whole or not at all."""
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    for number, statements in enumerate(MIGRATIONS[version:], start=version + 1):
        with transaction(connection):
            for statement in statements:
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {number}")
        # The tables move into the file itself: a copy of it alone is still one of ours.
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def primary_code(error: sqlite3.Error) -> int:
    """Return SQLite's number for what went wrong, without the details in its upper bits."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF
