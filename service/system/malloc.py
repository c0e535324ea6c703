"""Memory of a process: free heap goes back to the system, and garbage collections are short."""

import asyncio
import ctypes
import gc
import os
import resource
import time
from typing import Final

from service.system.executors import UPKEEP

LIBC: Final = ctypes.CDLL(None) if os.name == "posix" else None
MALLOC_TRIM: Final = getattr(LIBC, "malloc_trim", None)
MALLOPT: Final = getattr(LIBC, "mallopt", None) if MALLOC_TRIM is not None else None
"""Of glibc; other C libraries have no such calls, or ignore them."""

M_ARENA_MAX: Final = -8
"""Of glibc's malloc.h."""

ARENAS: Final = 2

BUSY_SECONDS: Final = 30.0
QUIET_SECONDS: Final = 30.0


def trim() -> None:
    """Give pages of the heap that nothing uses back to the system; only glibc keeps them.

    Images of many sizes leave holes between what stays, oneDNN's kernels say, and every
    thread that made one keeps its own. By itself glibc gives back no more than the heap's end.
    It takes 4 to 14 ms in an engine of 600 MB; other threads may run meanwhile.
    """
    if MALLOC_TRIM is not None:
        MALLOC_TRIM(0)


def share_arenas() -> None:
    """Let all threads share two heaps; glibc would give each its own, with its own holes.

    For a process whose threads hand each other large blocks: images are unpickled by one
    thread and encoded by several. After a thousand of them it held 70 MB in place of 124.
    """
    if MALLOPT is not None:
        MALLOPT(M_ARENA_MAX, ARENAS)


def share_arenas_if_limited() -> None:
    """Let all threads share two heaps where this process has a limit of address space.

    Each heap of a thread reserves 64 MB of it, up to eight heaps a core, which a model then lacks.
    """
    if resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY:
        share_arenas()


def freeze_start() -> None:
    """Let the garbage collector skip what the start has made, as all of it stays.

    Else every full collection looks at all of it, on whatever thread allocates: 36 ms of the
    event loop, and 100 to 150 on a busy machine, every 15 s under load; then it is 2 ms.
    """
    gc.collect()
    gc.freeze()


class Housekeeping:
    """Trims the heap of a process that works all the time, but seldom enough not to be felt.

    What was given back has to be fetched again, page by page: trimming after every image took
    9 % more CPU time; mappings of their own for all blocks above 1 MiB, instead, took 8 %.
    """

    def __init__(self, *, every_seconds: float = BUSY_SECONDS) -> None:
        self._every = every_seconds
        self._due = time.monotonic() + every_seconds

    def tidy(self, *, idle: bool) -> None:
        """Trim now if it is time, or if there is nothing else to do."""
        now = time.monotonic()
        if idle or now >= self._due:
            self._due = now + self._every
            trim()


async def keep_trimmed(every_seconds: float = QUIET_SECONDS) -> None:
    """Trim again and again, off the event loop, until cancelled."""
    while True:
        await asyncio.sleep(every_seconds)
        await UPKEEP.run(trim)
