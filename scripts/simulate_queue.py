"""Compare orders of the queue on the same arrivals, by simulated GPU seconds.

    python -m scripts.simulate_queue

First come, first served; shortest job first without ageing; and the service's own
``JobQueue``. All three feed one model of the step loop: batches of up to three pictures of one
size, highest response ratio between sizes, one picture decoded between two steps, 65 ms for a
step of 512x512. Waiting is the time from a job's arrival to its pictures, less what it would
take alone, so that waiting inside the engine counts.
"""

import argparse
import heapq
import random
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Protocol

from service.diffusion.generation import GenerationRequest
from service.jobs.beside import slips_in
from service.jobs.job import Job
from service.jobs.queue import JobQueue
from service.jobs.work import REST_STEPS, evaluations, pixels, work

PIXEL_STEP = 0.065 / 512**2
BATCH = 3
PLACES = 64
KINDS = ((0.5, 4, 512), (0.1, 4, 256), (0.2, 20, 512), (0.1, 20, 768), (0.1, 50, 512))
"""Share, steps and side of the mixed requests."""


class Order(Protocol):
    """What a simulated queue can do."""

    def put(self, job: Job) -> bool:
        """Take a job in, or refuse it."""

    def get(self) -> Job | None:
        """Hand out the next job."""

    def beside(self, running: Sequence[Job]) -> Job | None:
        """Hand out the next job if it may join a full batch."""


class FirstCome:
    """One line."""

    def __init__(self) -> None:
        self._line: deque[Job] = deque()

    def put(self, job: Job) -> bool:
        """Take a job in while there is a place."""
        if len(self._line) >= PLACES:
            return False
        self._line.append(job)
        return True

    def get(self) -> Job | None:
        """Hand out the oldest."""
        return self._line.popleft() if self._line else None

    def beside(self, running: Sequence[Job]) -> Job | None:  # noqa: ARG002 - the protocol's
        """Let nobody in beside a full batch."""
        return None


class ShortestFirst:
    """Least work first, whatever waits."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Job]] = []
        self._number = 0

    def put(self, job: Job) -> bool:
        """Take a job in while there is a place."""
        if len(self._heap) >= PLACES:
            return False
        self._number += 1
        heapq.heappush(self._heap, (work(job.request), self._number, job))
        return True

    def get(self) -> Job | None:
        """Hand out the shortest."""
        return heapq.heappop(self._heap)[-1] if self._heap else None

    def beside(self, running: Sequence[Job]) -> Job | None:  # noqa: ARG002 - the protocol's
        """Let nobody in beside a full batch."""
        return None


class Fair:
    """The service's own queue."""

    def __init__(self, keys: int) -> None:
        self._queue = JobQueue(PLACES, shared=keys > 1)

    def put(self, job: Job) -> bool:
        """Take a job in unless one of the limits refuses it."""
        if self._queue.limit(job.key) is not None:
            return False
        self._queue.put_nowait(job)
        return True

    def get(self) -> Job | None:
        """Hand out the next of the fair order."""
        return None if self._queue.empty() else self._queue.get_nowait()

    def beside(self, running: Sequence[Job]) -> Job | None:
        """Hand out the next if it may join a full batch."""
        first = next(iter(self._queue.waiting), None)
        return self.get() if first and slips_in(first, running) else None


ORDERS: dict[str, Callable[[int], Order]] = {
    "first come": lambda _keys: FirstCome(),
    "shortest": lambda _keys: ShortestFirst(),
    "this queue": Fair,
}


@dataclass(kw_only=True, eq=False)
class Running:
    """A job in the model of the step loop."""

    job: Job
    arrived: int
    left: int = field(init=False)

    def __post_init__(self) -> None:
        """Begin with all evaluations."""
        self.left = evaluations(self.job.request)

    def urgency(self, clock: int) -> float:
        """Return the response ratio, as ``service.diffusion.order`` does."""
        rest = pixels(self.job.request) * self.left
        return (clock - self.arrived + rest) / rest


class Loop:
    """A model of the step loop; one picture a job."""

    def __init__(self) -> None:
        self.tasks: list[Running] = []
        self._clock = 0
        self._decoded = False

    def add(self, job: Job) -> None:
        """Take a job in."""
        self.tasks.append(Running(job=job, arrived=self._clock))

    @property
    def jobs(self) -> list[Job]:
        """Those in it."""
        return [task.job for task in self.tasks]

    def step(self) -> tuple[float, dict[str, float], list[Job]]:
        """Decode or move one batch; return its seconds, each key's share and who is done."""
        finished = [task for task in self.tasks if not task.left]
        moving = [task for task in self.tasks if task.left]
        if finished and not (self._decoded and moving):
            self._decoded = True
            job = finished[0].job
            self.tasks.remove(finished[0])
            seconds = REST_STEPS * pixels(job.request) * PIXEL_STEP
            return seconds, {job.key: seconds}, [job]
        self._decoded = False
        groups: dict[int, list[Running]] = defaultdict(list)
        for task in moving:
            groups[task.job.request.width].append(task)
        for group in groups.values():
            group.sort(key=lambda task: -task.urgency(self._clock))
        batch = max(groups.values(), key=lambda group: group[0].urgency(self._clock))
        shares: dict[str, float] = defaultdict(float)
        for task in batch[:BATCH]:
            task.left -= 1
            task.job.steps_done += 1
            self._clock += pixels(task.job.request)
            shares[task.job.key] += pixels(task.job.request) * PIXEL_STEP
        return sum(shares.values()), shares, []


@dataclass(kw_only=True)
class Result:
    """What became of the jobs."""

    waits: dict[Job, float] = field(default_factory=dict)
    """Of those that were not refused."""
    used: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    """GPU seconds by key, until the arrivals end."""


def fill(loop: Loop, order: Order) -> None:
    """Let jobs in as the consumer does: up to a full batch, and one short one beside it."""
    while len(loop.tasks) < BATCH and (entering := order.get()) is not None:
        loop.add(entering)
    if len(loop.tasks) == BATCH and (entering := order.beside(loop.jobs)) is not None:
        loop.add(entering)


def simulate(order: Order, arrivals: Sequence[tuple[float, Job]]) -> Result:
    """Run jobs through a queue and the loop until the last picture."""
    loop, result, now, coming = Loop(), Result(), 0.0, deque(arrivals)
    last = arrivals[-1][0]
    came = {job: moment for moment, job in arrivals}
    for job in came:  # Another order may have run them before.
        job.steps_done = 0
    while True:
        while coming and coming[0][0] <= now:
            order.put(coming.popleft()[1])
        fill(loop, order)
        if not loop.tasks:
            if not coming:
                return result
            now = coming[0][0]
            continue
        seconds, shares, done = loop.step()
        if now < last:
            for key, share in shares.items():
                result.used[key] += share
        now += seconds
        for job in done:
            result.waits[job] = now - came[job] - work(job.request) * PIXEL_STEP


def request(steps: int, side: int) -> GenerationRequest:
    """Return a request of this shape."""
    return GenerationRequest(prompt="", steps=steps, width=side, height=side)


def mixed(chance: random.Random) -> GenerationRequest:
    """Return one of the mixed requests."""
    (shape,) = chance.choices(KINDS, [share for share, _, _ in KINDS])
    return request(*shape[1:])


def stream(
    chance: random.Random,
    key: str,
    load: float,
    seconds: float,
    make: Callable[[random.Random], GenerationRequest],
) -> Iterator[tuple[float, Job]]:
    """Yield Poisson arrivals of one key that take ``load`` of the GPU's time."""
    mean = fmean(work(make(chance)) for _ in range(2000)) * PIXEL_STEP
    now = 0.0
    while (now := now + chance.expovariate(load / mean)) < seconds:
        yield now, Job(request=make(chance), key=key)


def scenarios(seed: int, seconds: float) -> dict[str, list[tuple[float, Job]]]:
    """Return the arrivals of each scenario."""
    light = [(f"light-{n}", 0.1, mixed) for n in (1, 2, 3)]
    short, long = (lambda _: request(4, 512)), (lambda _: request(50, 512))
    plans = {
        "One key, 90 % load, mixed requests": [("only", 0.9, mixed)],
        "One key sends twice what the GPU can do, three send a tenth each": [
            ("flood", 2.0, mixed),
            *light,
        ],
        "Two keys send twice what the GPU can do: 50 steps and 4 steps": [
            ("50-step", 2.0, long),
            ("4-step", 2.0, short),
        ],
        "One key, 4 steps at 90 % load, a job of 50 steps every 100 s": [("only", 0.9, short)],
        "One key, 4 steps at 120 % load, one job of 50 steps": [("only", 1.2, short)],
        "One key, 50 steps at 90 % load, a job of 4 steps every 100 s": [("only", 0.9, long)],
    }
    made = {}
    for name, plan in plans.items():
        chance = random.Random(f"{seed} {name}")  # noqa: S311 - repeatable, not secret
        arrivals = [each for part in plan for each in stream(chance, *part[:2], seconds, part[2])]
        lone = range(60, 61) if "one job" in name else range(60, int(seconds), 100)
        for steps in (50, 4):
            if f"job of {steps} " in f"{name} ":
                beside = request(steps, 512)
                arrivals += [(float(at), Job(request=beside, key="only")) for at in lone]
        made[name] = sorted(arrivals, key=lambda arrival: arrival[0])
    return made


def fairness(result: Result, arrivals: Sequence[tuple[float, Job]]) -> float:
    """Return Jain's index of the GPU time that keys got, against their max-min fair shares.

    Jain, Chiu and Hawe (1984): 1 when every key got the same part of what it is due.
    """
    asked: dict[str, float] = defaultdict(float)
    for _, job in arrivals:
        asked[job.key] += work(job.request) * PIXEL_STEP
    left, due = sum(result.used.values()), {}
    for number, (key, wanted) in enumerate(sorted(asked.items(), key=lambda item: item[1])):
        due[key] = min(wanted, left / (len(asked) - number))
        left -= due[key]
    parts = [result.used[key] / due[key] for key in asked]
    return sum(parts) ** 2 / (len(parts) * sum(part**2 for part in parts))


def rows(result: Result, arrivals: Sequence[tuple[float, Job]]) -> Iterator[str]:
    """Yield a table row for each key and number of steps."""
    groups: dict[tuple[str, int], list[float]] = defaultdict(list)
    refused: Counter[tuple[str, int]] = Counter()
    for _, job in arrivals:
        group = (job.key.split("-")[0] if "light" in job.key else job.key, job.request.steps)
        if job in result.waits:
            groups[group].append(result.waits[job])
        else:
            refused[group] += 1
    for group in sorted({*groups, *refused}):
        waits = sorted(groups[group]) or [float("nan")]
        yield (
            f"{group[0]} | {group[1]} | {len(groups[group])} | {refused[group]} | "
            f"{fmean(waits):.1f} | {waits[int(0.95 * (len(waits) - 1))]:.1f} | {waits[-1]:.1f}"
        )


def main() -> None:
    """Print one table for each scenario."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=3600.0, help="of arrivals")
    options = parser.parse_args()
    for name, arrivals in scenarios(options.seed, options.seconds).items():
        print(f"\n### {name}\n")
        print("| order | key | steps | done | refused | mean wait, s | p95 | worst | Jain |")
        print("|---|---|---|---|---|---|---|---|---|")
        for order, make in ORDERS.items():
            result = simulate(make(len({job.key for _, job in arrivals})), arrivals)
            jain = f"{fairness(result, arrivals):.3f}"
            for row in rows(result, arrivals):
                print(f"| {order} | {row} | {jain} |")


if __name__ == "__main__":
    main()
