"""What a decision costs: processor time of the dispatcher for each job."""

import cProfile
import pstats
import time
from dataclasses import dataclass
from typing import Final

from service.jobs.job import Job
from tests.support.simulation.scale.timed_engine import TimedEngine
from tests.support.simulation.simulate import request, simulated

MANY: Final = 10**6
"""Places of a queue that is never full."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Processor time of one thread."""

    engines: int
    waiting: int
    keys: int
    milliseconds: float
    """For each job: accepted, started, told of ``reports`` times, and finished."""

    @property
    def a_second(self) -> float:
        """Jobs a second that one processor core can decide about."""
        return 1000 / self.milliseconds


def cost(
    engines: int, waiting: int, keys: int, *, jobs: int, reports: int = 0, profile: bool = False
) -> Cost:
    """Keep so many engines busy and so many jobs of so many keys waiting, while ``jobs`` end."""
    owners = [f"key-{number}" for number in range(keys)]
    times: dict[str, float] = {}
    same = request(20)

    def job(number: int) -> Job:
        made = Job(request=same, owner=owners[number % keys])
        # They end one after the other.
        times[made.id] = 1.0 + number % engines / engines
        return made

    fakes = [TimedEngine(times, reports=reports) for _ in range(engines)]
    with simulated(owners, engines=fakes, batch=1, places=MANY) as run:
        loop = run.loop
        loop.do(run.dispatcher.start())
        number = 0
        for _ in range(engines + waiting):
            run.enters(job(number))
            number += 1
        loop.settle()
        profiler = cProfile.Profile()
        ended = run.ledger.ends
        began = time.process_time()
        if profile:
            profiler.enable()
        while run.ledger.ends < ended + jobs:
            before = run.ledger.ends
            loop.advance(1 / engines)
            for _ in range(run.ledger.ends - before):
                run.enters(job(number))
                number += 1
        profiler.disable()
        took = time.process_time() - began
        done = run.ledger.ends - ended
        if profile:
            pstats.Stats(profiler).sort_stats("tottime").print_stats(25)
        run.dispatcher.give_up()
        loop.do(run.dispatcher.stop())
    return Cost(engines=engines, waiting=waiting, keys=keys, milliseconds=1000 * took / done)
