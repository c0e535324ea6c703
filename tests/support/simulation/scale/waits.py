"""How long jobs wait for one of many GPUs, each of which works on one job at a time."""

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Final

from service.jobs.job import Job
from tests.support.simulation.ledger import ROUNDING
from tests.support.simulation.scale.cost import MANY
from tests.support.simulation.scale.formulas import lognormal, mean_wait
from tests.support.simulation.scale.timed_engine import TimedEngine
from tests.support.simulation.simulate import request, simulated

BATCHES: Final = 4
"""Parts of a run whose means are taken one by one."""


def warm(servers: int, load: float) -> float:
    """Return the mean service times after which an empty system is about in its steady state.

    Ten until the jobs that came first have gone, and two of the times in which M/M/k forgets where
    it was (Morse, 1955).
    """
    return 10 + 2 / (servers * (1 - math.sqrt(load)) ** 2)


@dataclass(frozen=True, kw_only=True)
class Waits:
    """Mean waits of the parts of several runs, in mean service times, and what a formula says."""

    servers: int
    load: float
    variation: float
    """Squared coefficient of variation of the service times."""
    jobs: int
    """Those that count, in all runs."""
    means: tuple[float, ...]
    """Of each part of each run."""
    waited: float
    """Share of the jobs that waited."""

    @property
    def mean(self) -> float:
        """The mean of the means."""
        return fmean(self.means)

    @property
    def error(self) -> float:
        """Standard error of the mean, from the means of the parts."""
        return stdev(self.means) / len(self.means) ** 0.5 if len(self.means) > 1 else 0.0

    @property
    def formula(self) -> float:
        """The mean by Erlang C and Lee-Longton."""
        return mean_wait(self.servers, self.load, variation=self.variation)


def seconds(chance: random.Random, variation: float) -> float:
    """Return a service time of mean 1: exponential for 1, else lognormal."""
    if variation == 1:
        return chance.expovariate(1.0)
    return chance.lognormvariate(*lognormal(variation)) if variation else 1.0


def waits(servers: int, load: float, variation: float, *, jobs: int, runs: int = 5) -> Waits:
    """Let ``jobs`` in all come at random times in so many runs, each from an empty system."""
    found: list[list[float]] = []
    for number in range(runs):
        chance = random.Random(f"{servers} {load} {variation} {number}")
        every = _run(chance, servers, load, variation, jobs // runs)
        size = len(every) // BATCHES
        found += [every[size * part : size * (part + 1)] for part in range(BATCHES)]
    return Waits(
        servers=servers,
        load=load,
        variation=variation,
        jobs=sum(map(len, found)),
        means=tuple(map(fmean, found)),
        waited=fmean(wait > ROUNDING for part in found for wait in part),
    )


def _run(
    chance: random.Random, servers: int, load: float, variation: float, jobs: int
) -> list[float]:
    times: dict[str, float] = {}
    same = request(20)

    def coming() -> Iterator[tuple[float, Job]]:
        now = 0.0
        for _ in range(jobs):
            now += chance.expovariate(servers * load)
            job = Job(request=same)
            times[job.id] = seconds(chance, variation)
            yield now, job

    engines = [TimedEngine(times) for _ in range(servers)]
    with simulated(["any"], engines=engines, batch=1, places=MANY) as run:
        run.run([run.sends(coming())], jobs / (servers * load))
        return [
            job.drawn - job.created - times[job.id]
            for job in run.jobs
            if job.created > warm(servers, load)
            if job.drawn is not None
        ]
