"""The service's own dispatcher over simulated engines, with clients, on a virtual clock."""

import asyncio
import random
from collections import defaultdict
from collections.abc import Callable, Collection, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any, Final

from service.config.table import Config
from service.core.spec import GenerationSpec
from service.core.work import work
from service.engine.base import Engine
from service.errors import QueueFull
from service.jobs.dispatch.dispatcher import Dispatcher
from service.jobs.job import Job
from service.telemetry.metrics import Metrics
from tests.support.simulation.clock import VirtualLoop, keep_time, restore_time
from tests.support.simulation.engine import PIXEL_STEP, SimulatedEngine
from tests.support.simulation.fake_models import FakeModel, catalog_with
from tests.support.simulation.ledger import Ledger

BATCH: Final = 3
PLACES: Final = 64
KINDS: Final = ((0.5, 4, 512), (0.1, 4, 256), (0.2, 20, 512), (0.1, 20, 768), (0.1, 50, 512))
"""Share, steps and side of the mixed requests."""

Make = Callable[[random.Random], GenerationSpec]


@dataclass(kw_only=True)
class Promise:
    """What a client was told, and what became of it, in seconds."""

    owner: str
    told: float
    true: float


class Simulation:
    """One queue, its engines, and what became of the jobs of its clients."""

    def __init__(
        self,
        loop: VirtualLoop,
        owners: Collection[str],
        *,
        engines: Sequence[Engine],
        models: Mapping[str, FakeModel] | None = None,
        batch: int = BATCH,
        places: int = PLACES,
        idle: float = 0.0,
        weights: Mapping[str, int] | None = None,
    ) -> None:
        self.jobs: list[Job] = []
        """Those that were let in."""
        self.refused: list[Job] = []
        self.places: list[Promise] = []
        """``Retry-After``, by clients who came back until they had a place."""
        self.starts: list[Promise] = []
        """Seconds until the start, as clients that wait were told first."""
        self.used: dict[str, float] = {}
        """GPU seconds by owner, when the time was over."""
        self.loop = loop
        config = Config(max_concurrent_requests=batch, queue_size=places, model_idle_seconds=idle)
        self.metrics = Metrics()
        self.dispatcher = Dispatcher(
            engines,
            self.metrics,
            config,
            weights=weights or (dict.fromkeys(owners, 1) if len(owners) > 1 else None),
            models=catalog_with(*filter(None, models or ())),
        )
        self.ledger = Ledger(self.dispatcher)
        loop.passing = self.ledger.passes

    def run(
        self,
        clients: Iterable[Coroutine[Any, Any, None]],
        seconds: float,
        others: Iterable[Coroutine[Any, Any, None]] = (),
    ) -> None:
        """Let clients come for so long; then let no more come, and end what waits.

        ``others`` go on until the end; what happened is checked then.
        """
        self.loop.do(self.dispatcher.start())
        tasks = [self.loop.begin(client) for client in clients]
        background = [self.loop.begin(other) for other in others]
        self.loop.advance(seconds)
        used: dict[str, float] = defaultdict(float)
        for job in self.jobs:
            decoded = work(job.request, steps_done=job.request.total_steps) * PIXEL_STEP
            used[job.owner] += job.gpu_seconds + (decoded if job.drawn else 0.0)
        self.used = dict(used)
        for task in tasks:
            task.cancel()
        while self.dispatcher.depth or self.dispatcher.running:
            self.loop.advance(10.0)
        for task in background:
            task.cancel()
        self.loop.do(self.dispatcher.stop())
        self.ledger.check(self.jobs)

    async def sends(self, arrivals: Iterable[tuple[float, Job]]) -> None:
        """Send jobs at their times, and none again that is refused."""
        for at, job in arrivals:
            await asyncio.sleep(at - self.loop.now)
            self.enters(job)

    async def draws(self, owner: str, requests: Iterable[GenerationSpec]) -> None:
        """Send one request after the other, each when the one before is drawn."""
        for request in requests:
            job = Job(request=request, owner=owner)
            if self.enters(job) is None:
                await job.wait()

    async def comes_back(self, owner: str, chance: random.Random) -> None:
        """Send mixed requests one after the other; when refused, wait for as long as told."""
        await asyncio.sleep(chance.uniform(0, 60))
        while True:
            request = own(mixed(chance), chance)
            first: tuple[float, float] | None = None
            while (told := self.enters(job := Job(request=request, owner=owner))) is not None:
                first = first or (self.loop.now, told)
                await asyncio.sleep(told)
            if first:
                self._note(self.places, job, first[1], first[0])
            position = self.dispatcher.position(job)
            await job.wait()
            if position:
                self._note(self.starts, job, position.start_seconds, job.created, job.started)

    def enters(self, job: Job) -> float | None:
        """Submit a job; return the seconds of ``Retry-After`` when there is no place for it."""
        job.created = self.loop.now
        try:
            self.dispatcher.submit(job)
        except QueueFull as full:
            self.refused.append(job)
            return float(full.retry_after or 0)
        self.jobs.append(job)
        return None

    def _note(
        self,
        promises: list[Promise],
        job: Job,
        told: float,
        since: float,
        until: float | None = None,
    ) -> None:
        end = self.loop.now if until is None else until
        promises.append(Promise(owner=job.owner, told=told, true=end - since))


@contextmanager
def simulated(
    owners: Collection[str],
    *,
    engines: int | Sequence[Engine] = 1,
    models: Mapping[str, FakeModel] | None = None,
    room: int = 1,
    **settings: Any,
) -> Iterator[Simulation]:
    """Make a simulation in a time of its own; no other may run in it.

    ``models`` are by name; the default one's is empty. Each takes its size of ``room``.
    ``settings`` are those of ``Simulation``.
    """
    loop = VirtualLoop()
    keep_time(loop)
    if isinstance(engines, int):
        batch = settings.get("batch", BATCH)
        engines = [SimulatedEngine(batch=batch, models=models, room=room) for _ in range(engines)]
    try:
        yield Simulation(loop, owners, engines=engines, models=models, **settings)
    finally:
        loop.end()
        restore_time()


def request(steps: int, side: int = 512) -> GenerationSpec:
    """Return a request of this shape."""
    return GenerationSpec(prompt="", steps=steps, width=side, height=side)


def mixed(chance: random.Random) -> GenerationSpec:
    """Return one of the mixed requests."""
    (shape,) = chance.choices(KINDS, [share for share, _, _ in KINDS])
    return request(*shape[1:])


def own(request: GenerationSpec, chance: random.Random) -> GenerationSpec:
    """Return a request that nobody else sends: by it a refused client is known again."""
    return replace(request, prompt=f"{chance.getrandbits(64):x}")


def arrivals(
    chance: random.Random, owner: str, load: float, seconds: float, make: Make = mixed
) -> list[tuple[float, Job]]:
    """Return Poisson arrivals of one key that take ``load`` of one GPU's time."""
    mean = fmean(work(make(chance)) for _ in range(2000)) * PIXEL_STEP
    found, now = [], 0.0
    while (now := now + chance.expovariate(load / mean)) < seconds:
        found.append((now, Job(request=own(make(chance), chance), owner=owner)))
    return found


def wait(job: Job) -> float:
    """Return the seconds from a job's arrival to its image, less what it takes alone."""
    if job.drawn is None:
        raise ValueError(f"{job} has no image.")
    return job.drawn - job.created - work(job.request) * PIXEL_STEP


def fairness(used: dict[str, float], sent: Sequence[Job]) -> float:
    """Return Jain's index of the GPU time that keys got, against their max-min fair shares.

    Jain, Chiu and Hawe (1984): 1 when every key got the same part of what it is due.
    """
    asked: dict[str, float] = defaultdict(float)
    for job in sent:
        asked[job.owner] += work(job.request) * PIXEL_STEP
    left, parts = sum(used.values()), []
    for number, (owner, wanted) in enumerate(sorted(asked.items(), key=lambda item: item[1])):
        due = min(wanted, left / (len(asked) - number))
        left -= due
        parts.append(used.get(owner, 0.0) / due)
    return sum(parts) ** 2 / (len(parts) * sum(part**2 for part in parts))
