"""What Ray costs: CPU and latency of images and steps, next to an engine process of this machine.

``python -m tests.support.ray.cost`` makes the same images with both, one job after the other, and
prints a table. The engine makes no real images; both ways end with a packed PNG file in this
process, which the local one packs itself. Then it watches a cluster that has nothing to do.
"""

import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from service.config.table import Config
from service.core.events import JobFinished, Stepped
from service.core.spec import GenerationSpec
from service.engine.base import Engine
from service.engine.process.parent import ProcessEngine
from service.engine.protocol import EngineReady, Event
from service.images.packing import packed
from service.system.executors import IMAGES
from tests.support.fake_worker import FakeWorker
from tests.support.ray.cluster import Cluster
from tests.support.ray.engines import WAIT_SECONDS, Engines

JOB_SECONDS: Final = 0.5
JOBS: Final = 30
STEPS: Final = (10, 50)
IDLE_SECONDS: Final = 30.0
KINDS: Final = ("10 steps", "50 steps", "50 steps, watched")

Processes = Callable[[], Iterable[psutil.Process]]


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Of one job."""

    cpu: float
    """Milliseconds of all processes together."""
    own: float
    """Of those, this process's, in whose place the service is."""
    latency: float
    """Median milliseconds from the command to the packed image, beyond the seconds of the steps."""
    step: float
    """Median milliseconds until a step is told, beyond those of all steps until then."""


def used(processes: Iterable[psutil.Process]) -> float:
    """Return the CPU seconds of processes so far."""
    total = 0.0
    for each in processes:
        with suppress(psutil.NoSuchProcess):
            times = each.cpu_times()
            total += times.user + times.system
    return total


async def measured(
    engine: Engine, events: "asyncio.Queue[Event]", steps: int, watched: bool, processes: Processes
) -> Cost:
    """Make images one after the other."""
    request = GenerationSpec(prompt="a cat", width=512, height=512, steps=steps)
    own = psutil.Process()
    before, mine, latencies = used(processes()), used([own]), []
    steps_told: list[float] = []
    for number in range(JOBS):
        began, job_id = time.monotonic(), f"{steps}-{watched}-{number}"
        engine.preview(job_id, wanted=watched)
        engine.generate(job_id, request, 1)
        finished = await ended(events, began, JOB_SECONDS / steps, steps_told)
        for image in finished.images:
            await IMAGES.run(packed, image)
        latencies.append(time.monotonic() - began - JOB_SECONDS)
    return Cost(
        cpu=1e3 * (used(processes()) - before) / JOBS,
        own=1e3 * (used([own]) - mine) / JOBS,
        latency=1e3 * statistics.median(latencies),
        step=1e3 * statistics.median(steps_told),
    )


async def ended(
    events: "asyncio.Queue[Event]", began: float, each: float, told: list[float]
) -> JobFinished:
    """Wait for the end of the job, and note how late each step is told that takes so long."""
    async with asyncio.timeout(WAIT_SECONDS):
        while not isinstance(said := await events.get(), JobFinished):
            if isinstance(said, Stepped):
                done = max(said.progress.values())
                told.append(time.monotonic() - began - done * each)
        return said


async def all_kinds(
    engine: Engine, events: "asyncio.Queue[Event]", processes: Processes
) -> list[Cost]:
    """Measure few steps, many steps, and many that somebody looks at."""
    few, many = STEPS
    return [
        await measured(engine, events, steps, watched, processes)
        for steps, watched in ((few, False), (many, False), (many, True))
    ]


async def local() -> list[Cost]:
    """Measure an engine process of this machine."""
    engine = ProcessEngine(Config(), entry=FakeWorker(job_seconds=JOB_SECONDS))
    events: asyncio.Queue[Event] = asyncio.Queue()
    await engine.start(events.put_nowait)
    while not isinstance(await events.get(), EngineReady):
        pass
    assert engine.pid is not None
    processes = (psutil.Process(), psutil.Process(engine.pid))
    costs = await all_kinds(engine, events, lambda: processes)
    await engine.stop()
    return costs


async def remote(cluster: Cluster) -> tuple[list[Cost], str]:
    """Measure an engine of a cluster, and the cluster while nothing happens."""
    engines = Engines(cluster, "cost", Path(tempfile.mkdtemp(dir=cluster.folder)))
    await engines.start()
    found = await engines.next()

    def processes() -> list[psutil.Process]:
        return [psutil.Process(), psutil.Process(engines.source.pid), *cluster.processes()]

    costs = await all_kinds(found.engine, found.events, processes)
    before, began = used(processes()), time.monotonic()
    await asyncio.sleep(IDLE_SECONDS)
    busy = (used(processes()) - before) / (time.monotonic() - began)
    held = sum(each.memory_full_info().pss for each in processes()[1:]) / 2**20
    idle = f"{100 * busy:.1f} % of a core, {held:.0f} MB (PSS) in {len(processes()) - 1} processes"
    await engines.source.stop()
    return costs, idle


def table(here: list[Cost], there: list[Cost]) -> str:
    """Return the figures of both as lines."""
    head = "| job | CPU ms here / Ray | of them the service's | added latency ms here / Ray |"
    lines = [f"{head} of a step event |", "|---|---|---|---|---|"]
    for kind, one, other in zip(KINDS, here, there, strict=True):
        lines.append(
            f"| {kind} | {one.cpu:.1f} / {other.cpu:.1f} | {one.own:.1f} / {other.own:.1f} "
            f"| {one.latency:.1f} / {other.latency:.1f} | {one.step:.1f} / {other.step:.1f} |"
        )
    more = [(each[1].cpu - each[0].cpu) / (STEPS[1] - STEPS[0]) for each in (here, there)]
    lines.append(f"| each step more | {more[0]:.2f} / {more[1]:.2f} | | | |")
    return "\n".join(lines)


async def main() -> None:
    """Measure both, one after the other, in one run."""
    here = await local()
    cluster = await asyncio.to_thread(Cluster, (1,), {"FAKE_JOB_SECONDS": str(JOB_SECONDS)})
    try:
        there, idle = await remote(cluster)
    finally:
        await asyncio.to_thread(cluster.end)
    load = os.getloadavg()[0]
    sys.stdout.write(f"{table(here, there)}\n\nIdle with one engine: {idle}. Load {load:.1f}.\n")


if __name__ == "__main__":
    asyncio.run(main())
