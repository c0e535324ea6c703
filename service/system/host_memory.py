"""The host's memory: what this process holds, and what it may still take."""

import ctypes
import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Final

PROC: Final = Path("/proc")
CGROUPS: Final = Path("/sys/fs/cgroup")
PAGE: Final = os.sysconf("SC_PAGE_SIZE")
RESET_PEAK: Final = "5"
"""Written to clear_refs it makes the present resident set the peak, see proc(5)."""


def resident() -> int:
    """Return the resident set of this process in bytes, 0 where /proc does not tell."""
    try:
        return int((PROC / "self/statm").read_text().split()[1]) * PAGE
    except (OSError, IndexError, ValueError):
        return 0


def reset_peak() -> bool:
    """Begin to watch the peak of the resident set; False where the kernel does not."""
    try:
        (PROC / "self/clear_refs").write_text(RESET_PEAK)
    except OSError:
        return False
    return True


def peak() -> int:
    """Return the largest resident set since ``reset_peak`` in bytes, 0 where unknown."""
    return _field(PROC / "self/status", "VmHWM:")


class _Mallinfo2(ctypes.Structure):
    """What mallinfo2(3) returns."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    )


def free_heap() -> int:
    """Return the bytes of the heap that are mapped and not in use; 0 without glibc 2.33."""
    ask = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if ask is None:
        return 0
    ask.restype = _Mallinfo2
    return int(ask().fordblks)


def total() -> int:
    """Return the bytes of memory of this machine, or of the container that the process is in."""
    machine = _field(PROC / "meminfo", "MemTotal:")
    return min([machine, *(most for _, most in _cgroups())])


def available() -> int | None:
    """Return the bytes that this process may still take; None where nothing tells.

    The least of what the machine, the control groups above the process (containers set
    them) and its own limit of address space leave.
    """
    return min(_bounds(), default=None)


def _bounds() -> Iterator[int]:
    if machine := _field(PROC / "meminfo", "MemAvailable:"):
        yield machine
    yield from _cgroup_bounds()
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY:
        mapped = _field(PROC / "self/status", "VmSize:")
        yield max(limit - mapped + free_heap(), 0)


def _cgroups() -> Iterator[tuple[Path, int]]:
    """Yield each control group (version 2) that has a limit, and the limit in bytes."""
    try:
        lines = (PROC / "self/cgroup").read_text().splitlines()
    except OSError:
        return
    own = next((line[3:] for line in lines if line.startswith("0::")), None)
    if own is None:
        return
    group = CGROUPS / own.lstrip("/")
    for folder in (group, *group.parents):
        try:
            most = (folder / "memory.max").read_text().strip()
            if most.isdecimal():
                yield folder, int(most)
        except OSError:
            pass
        if folder == CGROUPS:
            return


def _cgroup_bounds() -> Iterator[int]:
    """Yield what each control group leaves; files it can drop count as free."""
    for folder, most in _cgroups():
        try:
            now = int((folder / "memory.current").read_text())
        except (OSError, ValueError):
            continue
        for files in ("inactive_file", "active_file"):
            now -= _statistic(folder / "memory.stat", files)
        yield max(most - now, 0)


def _field(path: Path, name: str) -> int:
    """Return a line of ``name value kB`` in bytes, 0 where there is none."""
    return _statistic(path, name) * 1024


def _statistic(path: Path, name: str) -> int:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return 0
    for line in lines:
        words = line.split()
        if words[:1] == [name]:
            return int(words[1])
    return 0
