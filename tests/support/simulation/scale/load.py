"""Many GPUs that draw several jobs at a time by steps, many keys, and engines that end."""

import asyncio
import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, quantiles

from service.core.outcome import Outcome
from service.jobs.job import Job
from tests.support.simulation.engine import SimulatedEngine
from tests.support.simulation.simulate import (
    BATCH,
    Promise,
    arrivals,
    fairness,
    mixed,
    simulated,
    wait,
)


def places(engines: int) -> int:
    """Return the places of the queue: with many GPUs a job waits for fewer others of its GPU."""
    return 64 + 2 * engines


CLIENTS = 24
"""Clients for each engine that come back as often as they are refused."""

DETECTED, RESTART = 5.0, 20.0
"""Seconds until an engine that died is noticed, and until its model is loaded again."""

LEASE = 10.0
"""The same for a machine that nobody hears."""

NODE = 8
"""Engines of one machine."""


@dataclass(frozen=True, kw_only=True)
class Shares:
    """How one key that floods the queue and others that do not are served."""

    engines: int
    jain: float
    done: int
    refused: int
    light_refused: int
    light_wait: float
    """Mean seconds that a job of a light key waits."""
    light_p99: float
    flood_wait: float
    used: float
    """Share of the engines' time that was used."""


def shares(engines: int, *, seconds: float, keys: int = 20, seed: int = 1) -> Shares:
    """Let one key send twice what all GPUs can do, and ``keys`` others half of it together.

    Their parts are as 1, 1/2, 1/3 … (Zipf).
    """
    chance = random.Random(f"shares {engines} {seed}")
    parts = [1 / number for number in range(1, keys + 1)]
    loads = {
        "flood": 2.0,
        **{f"light-{n}": 0.5 * part / sum(parts) for n, part in enumerate(parts)},
    }
    sent = {
        key: arrivals(chance, key, load * engines, seconds, mixed) for key, load in loads.items()
    }
    with simulated(list(loads), engines=engines, places=places(engines)) as run:
        run.run([run.sends(each) for each in sent.values()], seconds)
        light = [wait(job) for job in run.jobs if job.owner != "flood"]
        return Shares(
            engines=engines,
            jain=fairness(run.used, [job for each in sent.values() for _, job in each]),
            done=len(run.jobs),
            refused=len(run.refused),
            light_refused=sum(job.owner != "flood" for job in run.refused),
            light_wait=fmean(light),
            light_p99=quantiles(light, n=100)[-1],
            flood_wait=fmean(wait(job) for job in run.jobs if job.owner == "flood"),
            used=sum(run.used.values()) / seconds / engines,
        )


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What clients were told when they were refused, and when they got a place."""

    engines: int
    promises: tuple[Promise, ...]
    starts: tuple[Promise, ...]

    @staticmethod
    def ratios(promises: Sequence[Promise]) -> list[float]:
        """Return true / told; below a second no difference counts."""
        return [max(each.true, 1.0) / max(each.told, 1.0) for each in promises]

    @staticmethod
    def within(promises: Sequence[Promise], factor: float = 2.0) -> float:
        """Return the share that was right within a factor."""
        return fmean(1 / factor <= ratio <= factor for ratio in Kept.ratios(promises))


def kept(engines: int, *, seconds: float, seed: int = 1) -> Kept:
    """Let many clients of four keys come back when they are told to."""
    owners = [f"key-{number}" for number in range(4)]
    with simulated(owners, engines=engines, places=places(engines)) as run:
        chances = (random.Random(f"kept {seed} {n}") for n in range(CLIENTS * engines))
        coming = [run.comes_back(owners[n % 4], chance) for n, chance in enumerate(chances)]
        run.run(coming, seconds)
        return Kept(engines=engines, promises=tuple(run.places), starts=tuple(run.starts))


@dataclass(frozen=True, kw_only=True)
class Failures:
    """What engines that end cost."""

    engines: int
    between: float
    """Mean seconds between two failures of one engine."""
    died: int
    """Engines that died, each alone."""
    parted: int
    """Engines that ended with their machines, unheard, and were heard again later."""
    accepted: int
    succeeded: int
    failed: int
    repeated: int
    """Attempts that began again."""
    most_attempts: int
    lost: float
    """Share of the GPU time whose work was lost."""
    by_rates: float
    """The same by the rate of failures and what each loses."""
    wait: float
    p99: float
    undisturbed: float
    """Mean wait of the same jobs when nothing fails."""


def failures(
    engines: int, *, seconds: float, between: float, load: float = 0.7, seed: int = 1
) -> Failures:
    """Let engines die, one at a time and a machine at a time, while jobs come.

    Half of the failures are those of single engines, which are noticed soon; the others take a
    machine of ``NODE`` engines away, which works on unheard until it is given up, and is heard
    again after that.
    """
    calm = _broken(engines, seconds, math.inf, load, seed)
    run = _broken(engines, seconds, between, load, seed)
    # At any moment an engine has so much unfinished work: what one that ends loses on average.
    held = fmean(_held(job) for job in calm.jobs) * len(calm.jobs) / seconds / engines
    used = sum(job.gpu_seconds for job in run.jobs) + run.lost
    outcomes = Counter(job.outcome for job in run.jobs)
    waits = [wait(job) for job in run.jobs if job.drawn is not None]
    return Failures(
        engines=engines,
        between=between,
        died=run.ends["killed"],
        parted=run.ends["lost"],
        accepted=len(run.jobs),
        succeeded=outcomes[Outcome.SUCCEEDED],
        failed=outcomes[Outcome.FAILED],
        repeated=run.repeated,
        most_attempts=max(job.attempts for job in run.jobs),
        lost=run.lost / used,
        by_rates=held * run.ends.total() / used,
        wait=fmean(waits),
        p99=quantiles(waits, n=100)[-1],
        undisturbed=fmean(wait(job) for job in calm.jobs),
    )


@dataclass(frozen=True, kw_only=True)
class _Run:
    jobs: list[Job]
    ends: Counter[str]
    repeated: int
    lost: float


def _broken(engines: int, seconds: float, between: float, load: float, seed: int) -> _Run:
    sent = arrivals(random.Random(f"sent {engines} {seed}"), "any", load * engines, seconds)
    fakes = [SimulatedEngine(batch=BATCH) for _ in range(engines)]
    with simulated(["any"], engines=fakes, places=len(sent) + 1) as run:
        breaking = _breaks(fakes, between, random.Random(f"breaks {engines} {seed}"))
        run.run([run.sends(sent)], seconds, [breaking])
        ends = sum((each.ended for each in fakes), Counter[str]())
        return _Run(
            jobs=run.jobs, ends=ends, repeated=run.ledger.requeued_jobs, lost=run.ledger.lost
        )


def _held(job: Job) -> float:
    """Return the GPU seconds that it had in an engine, summed over the seconds that it was there.

    It gets them evenly, so that it had half of them on average.
    """
    if job.drawn is None or job.started is None:
        return 0.0
    return (job.drawn - job.started) * job.gpu_seconds / 2


async def _breaks(
    engines: Sequence[SimulatedEngine], between: float, chance: random.Random
) -> None:
    """End engines at random times, each once in ``between`` seconds on average."""
    alone = len(engines) / between / 2
    machines = alone / NODE
    while alone:
        await asyncio.sleep(chance.expovariate(alone + machines))
        if chance.random() < alone / (alone + machines):
            chance.choice(engines).fail(detected=DETECTED, restart=RESTART)
        else:
            first = chance.randrange(len(engines)) // NODE * NODE
            heard = LEASE + chance.uniform(1, 30)
            for engine in engines[first : first + NODE]:
                engine.part(detected=LEASE, restart=RESTART, heard=heard)
