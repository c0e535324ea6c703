"""Compare what waiting and refused clients are told with what becomes of them.

    python -m scripts.simulate_answers

So many clients that the queue is always full: each sends a mixed request, comes back after
the ``Retry-After`` it is told when it is refused, and sends the next one when its picture is
there. The queue, the estimate, the start times and the places are the service's own; the engine
is the model of ``scripts.simulate_queue``.
"""

import argparse
import heapq
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from scripts.simulate_queue import BATCH, PIXEL_STEP, PLACES, Loop, mixed
from service.diffusion.generation import GenerationRequest
from service.jobs.estimate import Estimate
from service.jobs.job import Job
from service.jobs.places import Places
from service.jobs.position import Outlook
from service.jobs.queue import JobQueue
from service.jobs.work import REST_STEPS, pixels

FACTOR = 2
"""What counts as right."""

LEAST = 1.0
"""Seconds below which no difference counts."""


@dataclass(kw_only=True, order=True)
class Client:
    """One client at the time it comes (again)."""

    at: float
    number: int
    key: str = field(compare=False)
    request: GenerationRequest = field(compare=False)
    refused: float | None = field(default=None, compare=False)
    """When it was refused first."""
    told: float = field(default=0.0, compare=False)


def asked(chance: random.Random) -> GenerationRequest:
    """Return a request that nobody else sends."""
    return replace(mixed(chance), prompt=f"{chance.getrandbits(64):x}")


class Simulation:
    """Clients, the service's own parts, and the model of the engine."""

    def __init__(self, seed: int, clients: Sequence[str]) -> None:
        self.places: dict[str, list[tuple[float, float]]] = {key: [] for key in clients}
        """Told and true seconds until a place, by key."""
        self.starts: dict[str, list[tuple[float, float]]] = {key: [] for key in clients}
        """Told and true seconds until the start, by key."""
        self._chance = random.Random(seed)  # noqa: S311 - repeatable, not secret
        self._queue = JobQueue(PLACES, shared=len(self.places) > 1)
        self._estimate = Estimate()
        self._estimate.observe(pixels=1, seconds=PIXEL_STEP)
        self._estimate.observe_rest(pixels=1, seconds=PIXEL_STEP * REST_STEPS)
        self._outlook = Outlook(self._queue, self._estimate, batch_limit=BATCH)
        self._promises = Places(self._queue)
        self._loop = Loop()
        self._now = 0.0
        self._coming = [
            Client(
                at=self._chance.uniform(0, 60),
                number=number,
                key=key,
                request=asked(self._chance),
            )
            for number, key in enumerate(clients)
        ]
        heapq.heapify(self._coming)
        self._owners: dict[str, Client] = {}
        self._expected: dict[str, tuple[float, float]] = {}

    def run(self, seconds: float) -> None:
        """Let clients come and the engine work."""
        while self._now < seconds:
            while self._coming and self._coming[0].at <= self._now:
                self._comes(heapq.heappop(self._coming))
            while len(self._loop.tasks) < BATCH and not self._queue.empty():
                self._begin(self._queue.get_nowait())
            if self._loop.tasks:
                self._step()
            else:
                self._now = self._coming[0].at

    @property
    def _running(self) -> list[Job]:
        return [task.job for task in self._loop.tasks]

    def _waits(self, key: str) -> list[float]:
        return self._outlook.starts(self._running, key=key)

    def _comes(self, client: Client) -> None:
        job, now = Job(request=client.request, key=client.key), self._now
        if self._promises.limit(job, lambda: self._waits(job.key), now) is not None:
            told = self._promises.retry_after(job, self._waits(job.key), now)
            if client.refused is None:
                client.refused, client.told = now, told
            client.at = now + told
            heapq.heappush(self._coming, client)
            return
        self._promises.enter(job, now)
        self._outlook.accepted(job, self._running, now)
        self._owners[job.id] = client
        if (position := self._outlook.position(job, self._running)) is not None:
            self._expected[job.id] = now, position.start_seconds
        if client.refused is not None:
            self.places[client.key].append((client.told, now - client.refused))

    def _begin(self, job: Job) -> None:
        self._outlook.started(job, self._now)
        self._loop.add(job)
        came, expected = self._expected.pop(job.id)
        self.starts[job.key].append((expected, self._now - came))

    def _step(self) -> None:
        seconds, _, done = self._loop.step()
        self._now += seconds
        if not done:
            self._estimate.observe(pixels=round(seconds / PIXEL_STEP), seconds=seconds)
        for job in done:
            self._estimate.observe_rest(pixels=pixels(job.request), seconds=seconds)
            client = self._owners.pop(job.id)
            client.at, client.refused = self._now, None
            client.request = asked(self._chance)
            heapq.heappush(self._coming, client)


def row(name: str, pairs: Sequence[tuple[float, float]]) -> str:
    """Return a table row about told and true seconds."""
    ratios = sorted(max(true, LEAST) / max(told, LEAST) for told, true in pairs) or [float("nan")]
    right = sum(1 / FACTOR <= ratio <= FACTOR for ratio in ratios) / len(ratios)
    points = (ratios[int(part * (len(ratios) - 1))] for part in (0.05, 0.5, 0.95))
    return (
        f"| {name} | {len(pairs)} | {right:.0%} | " + " | ".join(f"{p:.2f}" for p in points) + " |"
    )


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=3600.0)
    options = parser.parse_args()
    print("| clients | what | number | within a factor of 2 | true/told, p5 | median | p95 |")
    print("|---|---|---|---|---|---|---|")
    plans = {
        "one key, 100 clients": ["only"] * 100,
        "one key, 670 clients": ["only"] * 670,
        "two keys, 100 and 4 clients": ["flood"] * 100 + ["light"] * 4,
    }
    for plan, clients in plans.items():
        simulation = Simulation(options.seed, clients)
        simulation.run(options.seconds)
        for key in sorted(set(clients)):
            name = plan if len(set(clients)) == 1 else f"{plan}: {key}"
            print(row(f"{name} | Retry-After", simulation.places[key]))
            print(row(f"{name} | start", simulation.starts[key]))


if __name__ == "__main__":
    main()
