"""What two processes hold: memory, files, sockets and threads, by what the kernel says of them.

Of the kernel's figures ``anonymous`` is the honest one, and the one that is judged: pages
that the process itself made (heaps, stacks, mappings without a file), and those of them that
were swapped out. A leak can be nowhere else. RSS also counts pages of libraries, which come as
code is used for the first time and go as the kernel likes. PSS and USS divide these among
the processes that map them, so they jump when somebody else on the machine starts torch.
"""

import asyncio
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from scripts.drill.service import Service

PROC: Final = Path("/proc")
KIB: Final = 1024


@dataclass(frozen=True, kw_only=True)
class Held:
    """What one process holds; memory in bytes."""

    anonymous: int
    rss: int
    pss: int
    uss: int
    files: int
    """Open descriptors, sockets among them."""
    sockets: int
    threads: int


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Everything that was measured at one time."""

    seconds: float
    generations: int
    phase: str
    resting: bool
    """Whether nothing was in work: such samples can be compared with each other."""
    service: Held
    engine: Held
    vram: dict[str, float]
    """GPU memory by kind; empty without a GPU."""
    store_bytes: int
    results_bytes: int

    def json(self) -> dict[str, Any]:
        """Return it as a report keeps it."""
        return asdict(self)


def held(pid: int, proc: Path = PROC) -> Held:
    """Ask the kernel about a process.

    Raises:
        OSError: it has ended, or there is no ``/proc/PID/smaps_rollup``.

    """
    folder = proc / str(pid)
    sizes = _fields(folder / "smaps_rollup")
    links = []
    for entry in (folder / "fd").iterdir():
        try:
            links.append(str(entry.readlink()))
        except OSError:  # Closed meanwhile.
            continue
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
    found = {}
    for line in path.read_text().splitlines():
        name, _, value = line.partition(":")
        number = value.split()
        if number and number[0].isdecimal():
            found[name] = int(number[0])
    return found


class Meter:
    """Measures one service; ``generations`` and ``phase`` are kept by who makes the traffic."""

    def __init__(self, service: Service, session: aiohttp.ClientSession, engine_pid: int) -> None:
        self.samples: list[Sample] = []
        self.generations = 0
        self.phase = ""
        self._session = session
        self._pids = service.child.pid, engine_pid
        self._data = service.folder / "data"
        self._began = time.monotonic()

    async def metrics(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        """Return the service's own figures by name and labels."""
        async with self._session.get("/metrics") as answer:
            answer.raise_for_status()
            text = await answer.text()
        return {
            (each.name, frozenset(each.labels.items())): each.value
            for family in text_string_to_metric_families(text)
            for each in family.samples
        }

    async def jobs(self, state: str) -> int:
        """Return how many jobs are in a state, as the job store has it; a page at most."""
        query = {"state": state, "limit": "100"}
        async with self._session.get("/jobs", params=query) as answer:
            answer.raise_for_status()
            return len((await answer.json())["jobs"])

    async def sample(self, *, resting: bool) -> Sample:
        """Measure once; GPU memory comes from the service, so at rest only."""
        vram = {}
        if resting:
            vram = {
                dict(labels)["kind"]: value
                for (name, labels), value in (await self.metrics()).items()
                if name == "sd_engine_gpu_memory_bytes"
            }
        service, engine = await asyncio.to_thread(lambda: [held(pid) for pid in self._pids])
        self.samples.append(
            Sample(
                seconds=round(time.monotonic() - self._began, 3),
                generations=self.generations,
                phase=self.phase,
                resting=resting,
                service=service,
                engine=engine,
                vram=vram,
                store_bytes=_bytes_of(self._data, "jobs.sqlite*"),
                results_bytes=_bytes_of(self._data / "results", "*"),
            )
        )
        return self.samples[-1]

    async def every(self, seconds: float) -> None:
        """Measure again and again, until cancelled."""
        while True:
            await asyncio.sleep(seconds)
            await self.sample(resting=False)


def _bytes_of(folder: Path, pattern: str) -> int:
    total = 0
    for path in folder.glob(pattern):
        try:
            total += os.stat(path).st_size  # noqa: PTH116 - half the time of Path.stat
        except OSError:  # Removed meanwhile.
            continue
    return total
