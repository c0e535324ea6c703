"""How long work takes, learned from the steps that were done."""

import math
from collections import deque
from collections.abc import Iterable

from service.jobs.job import Job

LEARNING_RATE = 0.1
"""Weight of the newest step: the mean follows a change of load within some twenty steps."""

PIXEL_STEP_SECONDS = 2.5e-7
"""First guess, before any step was seen: 65 ms for a step of 512x512."""


class Estimate:
    """Seconds of engine time per pixel and step, and what follows from them."""

    def __init__(self) -> None:
        self._pixel_step = PIXEL_STEP_SECONDS
        self._seen = False
        self._promises: deque[float] = deque()

    def observe(self, *, pixels: int, seconds: float) -> None:
        """Learn from one step of a batch of ``pixels`` in all."""
        measured = seconds / max(pixels, 1)
        if self._seen:
            measured = self._pixel_step + LEARNING_RATE * (measured - self._pixel_step)
        self._pixel_step, self._seen = measured, True

    def seconds(self, jobs: Iterable[Job]) -> float:
        """Return the engine time that ``jobs`` still need, one after the other."""
        return sum(job.remaining_work for job in jobs) * self._pixel_step

    def retry_after(self, waiting: tuple[Job, ...], running: tuple[Job, ...], now: float) -> int:
        """Return in how many whole seconds a refused client finds a place in the queue.

        The first refused client gets the next place: when the batch has worked off one
        job. Each further one gets the place after that of the one refused before it, so
        that they do not all come back at once. Nobody is sent further than the end of
        the present work, by when every place is free.
        """
        jobs = running + waiting
        end = self.seconds(jobs)
        per_job = end / max(len(jobs), 1)
        first = min((self.seconds([job]) for job in running), default=per_job) * max(
            len(running), 1
        )
        while self._promises and self._promises[0] <= now:
            self._promises.popleft()
        promised = max(now + first, self._promises[-1] + per_job if self._promises else now)
        if promised < now + end:
            self._promises.append(promised)
        return max(1, math.ceil(min(promised - now, end)))
