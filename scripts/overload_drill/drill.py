"""One drill: capacity first, then ten times that, with an eye on /health and on memory."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import aiohttp
import psutil

from scripts.drill.service import Service, service_in
from scripts.overload_drill.crowd import SECRETS, Crowd
from scripts.overload_drill.health import INTERVAL_SECONDS
from scripts.overload_drill.visit import Visit

BATCH: Final = 3
SETTINGS: Final = {
    "FAULT_FILE": "",
    "MIN_SIZE": "256",
    "MAX_CONCURRENT_REQUESTS": str(BATCH),
    "REQUEST_TIMEOUT_SECONDS": "120",
    "API_KEYS": ",".join(f"{name}:{secret}" for name, secret in SECRETS.items()),
}
IDLE_SECONDS: Final = 3.0
MEMORY_SECONDS: Final = 0.5


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What a drill shall do."""

    seed: int = 1
    factor: float = 10.0
    seconds: float = 60.0
    capacity_seconds: float = 20.0
    places: int = 64
    """Of the queue; the fewer, the sooner everybody has an answer."""
    folder: Path


@dataclass(frozen=True, kw_only=True)
class Probe:
    """One answer of /health."""

    at: float
    milliseconds: float
    waiting: int
    running: int


@dataclass(kw_only=True)
class Outcome:
    """What a drill has seen."""

    capacity: float = 0.0
    """Pictures a second."""
    places: int = 64
    visits: list[Visit] = field(default_factory=list)
    end: float = 0.0
    """When the last client came, as ``time.monotonic``."""
    idle: list[Probe] = field(default_factory=list)
    loaded: list[Probe] = field(default_factory=list)
    resident: list[int] = field(default_factory=list)
    """Bytes of the process that speaks HTTP, twice a second."""
    left_over: tuple[int, int] = (0, 0)
    """Jobs waiting and running when everybody had an answer."""


async def run(wish: Wish) -> Outcome:
    """Do the drill and return what it saw."""
    outcome = Outcome(places=wish.places)
    settings = {**SETTINGS, "QUEUE_SIZE": str(wish.places)}
    async with (
        service_in(wish.folder, settings) as service,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
    ):
        await service.start()
        async with _probed(service.address) as outcome.idle:
            await asyncio.sleep(IDLE_SECONDS)
        crowd = Crowd(service.url, session, wish.seed)
        outcome.capacity = await crowd.capacity(wish.capacity_seconds)
        outcome.visits = crowd.visits
        async with _weighed(service, outcome.resident), _probed(service.address) as outcome.loaded:
            outcome.end = await crowd.arrive(wish.factor * outcome.capacity, wish.seconds)
        async with session.get(f"{service.url}/health") as answer:
            body = await answer.json()
        outcome.left_over = int(body["queue"]["depth"]), int(body["running"])
    return outcome


@asynccontextmanager
async def _probed(address: str) -> AsyncIterator[list[Probe]]:
    """Ask for /health from another process until the end; the list is full only then."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "scripts.overload_drill.health", address),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=2**26,
    )
    found: list[Probe] = []
    try:
        yield found
    finally:
        said, _ = await process.communicate(b"")  # That closes its input.
    for at, milliseconds, waiting, running in json.loads(said):
        found.append(Probe(at=at, milliseconds=milliseconds, waiting=waiting, running=running))


def times(probes: list[Probe]) -> list[float]:
    """Return the milliseconds of all answers, sorted.

    A question that came late because the one before it was slow would have waited, too, and
    counts with the rest of that wait.
    """
    interval = 1000 * INTERVAL_SECONDS
    counted = []
    for probe in probes:
        left = probe.milliseconds
        while left > 0:
            counted.append(left)
            left -= interval
    return sorted(counted)


@asynccontextmanager
async def _weighed(service: Service, resident: list[int]) -> AsyncIterator[None]:
    """Note the memory of the service's first process now and then."""
    process = psutil.Process(service.child.pid)

    async def weigh() -> None:
        while True:
            resident.append(process.memory_info().rss)
            await asyncio.sleep(MEMORY_SECONDS)

    task = asyncio.create_task(weigh())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
