"""Rows that cannot be what was written: set aside whole, told, and out of everybody's way."""

import json
import sqlite3
from typing import Any, Final

import structlog

from service.jobs.store.base import Used
from service.jobs.store.reading import DamagedRow, name, whole
from service.jobs.store.schema import transaction
from service.jobs.store.stored import COLUMNS, StoredJob, from_row

log = structlog.get_logger(__name__)

KEEP: Final = "INSERT INTO set_aside (source, reason, found_at, content) VALUES (?, ?, ?, ?)"
PAGE: Final = 500
NUMBERED: Final = (
    f"SELECT seq, {', '.join(COLUMNS)} FROM jobs"  # noqa: S608 - names of our own
    " WHERE seq > ? AND expired_at IS NULL ORDER BY seq LIMIT ?"
)
LATEST_MINUTE: Final = 10**9
"""Since 1970; in the year 3871."""


def jobs(
    connection: sqlite3.Connection, where: str, values: tuple[object, ...], now: float
) -> list[StoredJob]:
    """Return the jobs that a query finds; damaged rows are set aside, and it is asked again.

    ``where`` is what follows the name of the table.
    """
    query = f"SELECT seq, {', '.join(COLUMNS)} FROM jobs {where}"  # noqa: S608 - words of our own
    while True:
        found, damaged = _read(connection.execute(query, values).fetchall())
        if not damaged:
            return found
        _set_aside(connection, damaged, now)


def check(connection: sqlite3.Connection, now: float) -> None:
    """Read every job that is not expired, and set aside what is damaged."""
    last = -(2**63)
    while rows := connection.execute(NUMBERED, (last, PAGE)).fetchall():
        last = rows[-1][0]
        if damaged := _read(rows)[1]:
            _set_aside(connection, damaged, now)


def usage(connection: sqlite3.Connection, now: float) -> list[Used]:
    """Return what owners have used, by minute; damaged rows are set aside."""
    sound = []
    for row in connection.execute("SELECT key, minute, images FROM usage").fetchall():
        key, minute, images = row
        if name(key) and whole(minute, -LATEST_MINUTE, LATEST_MINUTE) and whole(images):
            sound.append(Used(key, minute, images))
            continue
        content = _shown(("key", "minute", "images"), row)
        with transaction(connection):
            connection.execute(KEEP, ("usage", "it is no count of images", now, content))
            connection.execute("DELETE FROM usage WHERE key IS ? AND minute IS ?", (key, minute))
        log.error("row_set_aside", table="usage", reason="it is no count of images")
    return sound


def remove(connection: sqlite3.Connection, owner: str) -> None:
    """Delete the rows of an owner that were set aside."""
    rows = connection.execute("SELECT id, content FROM set_aside").fetchall()
    gone = [(found,) for found, content in rows if _owner_of(content) == owner]
    connection.executemany("DELETE FROM set_aside WHERE id = ?", gone)


def _owner_of(content: Any) -> Any:
    try:
        return json.loads(content)["key"]
    except (LookupError, TypeError, ValueError):  # No service wrote it.
        return None


Row = tuple[Any, ...]


def _read(rows: list[Row]) -> tuple[list[StoredJob], list[tuple[Row, str]]]:
    found, damaged = [], []
    for row in rows:
        try:
            found.append(from_row(row[1:]))
        except DamagedRow as error:
            damaged.append((row, str(error)))
    return found, damaged


def _set_aside(connection: sqlite3.Connection, damaged: list[tuple[Row, str]], now: float) -> None:
    with transaction(connection):
        for row, reason in damaged:
            content = _shown(("seq", *COLUMNS), row)
            connection.execute(KEEP, ("jobs", reason, now, content))
            connection.execute("DELETE FROM jobs WHERE seq = ?", (row[0],))
    for row, reason in damaged:
        log.error("row_set_aside", table="jobs", seq=row[0], reason=reason)


def _shown(columns: tuple[str, ...], row: Row) -> str:
    """Return a row as JSON; bytes in hexadecimal, and text that is none as its bytes."""
    return json.dumps(dict(zip(columns, row, strict=True)), default=_hex)


def _hex(value: Any) -> Any:
    return {"hex": value.hex()} if isinstance(value, bytes) else repr(value)
