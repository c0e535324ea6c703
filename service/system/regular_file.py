"""Reading files that somebody else puts there: only regular ones, and never without a bound."""

import os
import stat
from pathlib import Path
from typing import Final

KINDS: Final = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)

NO_WAITING: Final = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
"""A pipe that took the file's place meanwhile would wait for a writer."""


def read(path: Path, most_bytes: int) -> tuple[bytes, os.stat_result]:
    """Return what a regular file holds, and what is known of it.

    Raises:
        OSError: it cannot be read.
        ValueError: it is something else, or larger.

    """
    _demand_regular(path.stat())  # Opening a device may already do something.
    with os.fdopen(os.open(path, os.O_RDONLY | NO_WAITING), "rb") as file:
        found = os.fstat(file.fileno())
        _demand_regular(found)
        data = file.read(most_bytes + 1)
    if len(data) > most_bytes:
        raise ValueError(f"has more than {most_bytes} bytes")
    return data, found


def _demand_regular(found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        kind = next((text for test, text in KINDS if test(found.st_mode)), "something else")
        raise ValueError(f"is {kind}, and must be a regular file")
