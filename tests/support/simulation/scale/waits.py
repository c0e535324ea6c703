"""How long jobs wait for one of many GPUs, each of which works on one job at a time."""

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

WARM: Final = 0.1
"""Share of the jobs, the first ones, that do not count: they find an empty system."""


@dataclass(frozen=True, kw_only=True)
class Waits:
    """Mean waits of several runs, in mean service times, and what a formula says."""

    servers: int
    load: float
    variation: float
    """Squared coefficient of variation of the service times."""
    jobs: int
    """In all runs."""
    means: tuple[float, ...]
    """Of each run."""
    waited: float
    """Share of the jobs that waited."""

    @property
    def mean(self) -> float:
        """The mean of the means."""
        return fmean(self.means)

    @property
    def error(self) -> float:
        """Standard error of the mean, from the means of the runs."""
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
    found = [
        _run(
            random.Random(f"{servers} {load} {variation} {n}"),
            servers,
            load,
            variation,
            jobs // runs,
        )
        for n in range(runs)
    ]
    every = [wait for each in found for wait in each]
    return Waits(
        servers=servers,
        load=load,
        variation=variation,
        jobs=jobs,
        means=tuple(map(fmean, found)),
        waited=fmean(wait > ROUNDING for wait in every),
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
            for job in run.jobs[int(WARM * jobs) :]
            if job.drawn is not None
        ]
