"""What two processes hold: memory, files, sockets and threads, by what the kernel says of them.

Of the kernel's figures ``anonymous`` is the honest one, and the one that is judged: pages
that the process itself made (heaps, stacks, mappings without a file), and those of them that
were swapped out. A leak can be nowhere else. RSS also counts pages of libraries, which come as
code is used for the first time and go as the kernel likes. PSS and USS divide these among
the processes that map them, so they jump when somebody else on the machine starts torch.
"""

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.drills.common.report import KIB

PROC: Final = Path("/proc")
GPU_MEMORY: Final = "sd_engine_gpu_memory_bytes"


@dataclass(frozen=True, kw_only=True)
class Held:
    """What one process holds; memory in bytes."""

    anonymous: int
    rss: int
    pss: int
    uss: int
    files: int  # Open descriptors, sockets among them.
    sockets: int
    threads: int


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Everything that was measured at one time."""

    seconds: float
    generations: int
    phase: str
    resting: bool  # Whether nothing was in work: such samples can be compared with each other.
    service: Held
    engine: Held
    vram: dict[str, float]  # GPU memory by kind; empty without a GPU.
    store_bytes: int
    results_bytes: int


def held(pid: int, proc: Path = PROC) -> Held:
    """Ask the kernel about a process.

    Raises:
        OSError: it has ended, or there is no ``/proc/PID/smaps_rollup``.

    """
    folder = proc / str(pid)
    sizes = _fields(folder / "smaps_rollup")
    links = []
    for entry in (folder / "fd").iterdir():
        with suppress(OSError):  # Closed meanwhile.
            links.append(str(entry.readlink()))
    return Held(
        anonymous=(sizes["Anonymous"] + sizes["Swap"]) * KIB,
        rss=sizes["Rss"] * KIB,
        pss=sizes["Pss"] * KIB,
        uss=(sizes["Private_Clean"] + sizes["Private_Dirty"]) * KIB,
        files=len(links),
        sockets=sum(link.startswith("socket:") for link in links),
        threads=_fields(folder / "status")["Threads"],
    )


def _fields(path: Path) -> dict[str, int]:
    """Return the numbers of a file whose lines read ``Name:  12 kB``."""
    found = re.findall(r"^(\w+):\s+(\d+)", path.read_text(), re.MULTILINE)
    return {name: int(number) for name, number in found}


def by(figures: Mapping[str, float], name: str, label: str) -> dict[str, float]:
    """Return the sums of a metric by a label."""
    found: dict[str, float] = {}
    for series, value in figures.items():
        labels = dict(re.findall(r'(\w+)="([^"]*)"', series))
        if series.startswith(f"{name}{{") and value:
            found[labels[label]] = found.get(labels[label], 0.0) + value
    return found


def bytes_of(folder: Path, pattern: str) -> int:
    """Return the size of the files of a folder whose names match."""
    total = 0
    for path in folder.glob(pattern):
        with suppress(OSError):  # Removed meanwhile.
            total += os.stat(path).st_size  # noqa: PTH116 - half the time of Path.stat
    return total
