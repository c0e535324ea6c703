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


class Service:
    """The service's own parts round the model of the engine."""

    def __init__(self, *, shared: bool) -> None:
        self.queue = JobQueue(PLACES, shared=shared)
        self.estimate = Estimate()
        self.outlook = Outlook(self.queue, self.estimate, batch_limit=BATCH)
        self.places = Places(self.queue)
        self.loop = Loop()
        self.estimate.observe(pixels=1, seconds=PIXEL_STEP)
        self.estimate.observe_rest(pixels=1, seconds=PIXEL_STEP * REST_STEPS)

    @property
    def running(self) -> list[Job]:
        """The jobs in the engine."""
        return [task.job for task in self.loop.tasks]

    def submit(self, job: Job, now: float) -> int | None:
        """Accept a job, or return the ``Retry-After`` of its refusal."""
        if self.places.limit(job, self._starts, now) is not None:
            return self.places.retry_after(job, self._starts(), now)
        self.queue.put_nowait(job)
        self.places.redeem(job, now)
        return None

    def _starts(self) -> list[float]:
        return self.outlook.starts(self.running)


def asked(chance: random.Random) -> GenerationRequest:
    """Return a request that nobody else sends."""
    return replace(mixed(chance), prompt=f"{chance.getrandbits(64):x}")


def simulate(
    seed: int, clients: Sequence[str], seconds: float
) -> tuple[dict[str, list[tuple[float, float]]], dict[str, list[tuple[float, float]]]]:
    """Return told and true seconds until a place, and until the start, by key."""
    chance = random.Random(seed)  # noqa: S311 - repeatable, not secret
    service = Service(shared=len(set(clients)) > 1)
    coming = [
        Client(at=chance.uniform(0, 60), number=number, key=key, request=asked(chance))
        for number, key in enumerate(clients)
    ]
    heapq.heapify(coming)
    owner: dict[str, Client] = {}
    expected: dict[str, tuple[float, float]] = {}
    places: dict[str, list[tuple[float, float]]] = {key: [] for key in clients}
    starts: dict[str, list[tuple[float, float]]] = {key: [] for key in clients}
    now = 0.0
    while now < seconds:
        while coming and coming[0].at <= now:
            client = heapq.heappop(coming)
            job = Job(request=client.request, key=client.key)
            told = service.submit(job, now)
            if told is None:
                owner[job.id] = client
                position = service.outlook.position(job, service.running)
                if position is not None:
                    expected[job.id] = now, position.start_seconds
                if client.refused is not None:
                    places[client.key].append((client.told, now - client.refused))
                continue
            if client.refused is None:
                client.refused, client.told = now, told
            client.at = now + told
            heapq.heappush(coming, client)
        while len(service.loop.tasks) < BATCH and not service.queue.empty():
            job = service.queue.get_nowait()
            service.loop.add(job)
            came, start = expected.pop(job.id)
            starts[job.key].append((start, now - came))
        if not service.loop.tasks:
            now = coming[0].at
            continue
        took, _, done = service.loop.step()
        if not done:
            moved = round(took / PIXEL_STEP)
            service.estimate.observe(pixels=moved, seconds=took)
        now += took
        for job in done:
            service.estimate.observe_rest(pixels=pixels(job.request), seconds=took)
            client = owner.pop(job.id)
            client.at, client.refused, client.request = now, None, asked(chance)
            heapq.heappush(coming, client)
    return places, starts


def row(name: str, pairs: Sequence[tuple[float, float]]) -> str:
    """Return a table row about told and true seconds."""
    ratios = sorted(max(true, 0.5) / max(told, 0.5) for told, true in pairs) or [float("nan")]
    right = sum(0.5 <= ratio <= 2 for ratio in ratios) / len(ratios)
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
        places, starts = simulate(options.seed, clients, options.seconds)
        for key in sorted(set(clients)):
            name = plan if len(places) == 1 else f"{plan}: {key}"
            print(row(f"{name} | Retry-After", places[key]))
            print(row(f"{name} | start", starts[key]))


if __name__ == "__main__":
    main()
