"""Which models somebody works with, so that they are not removed meanwhile; imports no torch."""

import os
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final

from service.models import catalog, files

if sys.platform != "win32":
    import fcntl

MARKS: Final = (catalog.INDEX, f"*{files.SUFFIX}", f"snapshots/*/{catalog.INDEX}")
"""Files that stand for a model: in its folder, in one of single files, in the hub's cache."""

OPENED: Final = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0)
"""A named pipe in place of a file must not wait for its writer."""


def hold(path: Path) -> Callable[[], None]:
    """Say that this process works with a model, until it ends, however it ends.

    What cannot be locked is not: a file system without locks keeps nobody from working. Returns
    what says that it does so no more.
    """
    files: list[int] = []
    for mark in _marks(path):
        try:
            file = os.open(mark, OPENED)
        except OSError:
            continue
        _locked(file, exclusive=False)  # Stays open: the lock is the process's.
        files.append(file)
    return partial(_close, files)


def _close(files: list[int]) -> None:
    while files:
        os.close(files.pop())


def held(path: Path) -> bool:
    """Tell whether a process works with a model in this place."""
    for mark in _marks(path):
        try:
            file = os.open(mark, OPENED)
        except OSError:
            continue
        try:
            if not _locked(file, exclusive=True):
                return True
        finally:
            os.close(file)
    return False


def _marks(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
        return
    for pattern in MARKS:
        yield from sorted(path.glob(pattern))


def _locked(file: int, *, exclusive: bool) -> bool:
    if sys.platform == "win32":
        return True
    kind = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True
