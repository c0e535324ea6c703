"""How long work takes, learned from the steps that were done."""

from collections.abc import Iterable

from service.core.work import REST_STEPS, evaluations, pixels
from service.jobs.job import Job

LEARNING_RATE = 0.1
"""Weight of the newest step: the mean follows a change of load within some twenty steps."""

PIXEL_STEP_SECONDS = 2.5e-7
"""First guess, before any step was seen: 65 ms for a step of 512x512."""

LOAD_SECONDS = 10.0
"""First guess, before the engine was ready once."""


class Estimate:
    """Seconds of engine time per pixel and step, and what follows from them.

    Work for another model than the default one counts by how much longer its steps take.
    """

    def __init__(self) -> None:
        self.pixel_step = PIXEL_STEP_SECONDS
        """Seconds of a step per pixel of the batch."""
        self.done = 0.0
        """Pixel steps seen so far, for anyone."""
        self._others: dict[str, float] = {}
        """The same of other models than the default one."""
        self._rest: float | None = None
        self._seen = False

    def weight(self, model: str) -> float:
        """Return how many times as long a step takes with a model as with the default one."""
        if model not in self._others or self.pixel_step <= 0:
            return 1.0
        return self._others[model] / self.pixel_step

    def observe(self, *, pixels: int, seconds: float, model: str = "") -> None:
        """Learn from one step of a batch of ``pixels`` in all."""
        measured = seconds / max(pixels, 1)
        seen = self._others.get(model) if model else self.pixel_step if self._seen else None
        if seen is not None:
            measured = seen + LEARNING_RATE * (measured - seen)
        if model:
            self._others[model] = measured
        else:
            self.pixel_step, self._seen = measured, True
        self.done += pixels * self.weight(model)

    def observe_rest(self, *, pixels: int, seconds: float, model: str = "") -> None:
        """Learn from one finished job what its ``pixels`` took in addition to their steps."""
        measured = seconds / max(pixels, 1) / (self.weight(model) or 1.0)
        if self._rest is not None:
            measured = self._rest + LEARNING_RATE * (measured - self._rest)
        self._rest = measured

    @property
    def rest_steps(self) -> float:
        """What an image takes in addition to its steps, in steps of its size."""
        if self._rest is None or self.pixel_step <= 0:
            return REST_STEPS
        return self._rest / self.pixel_step

    def seconds(self, jobs: Iterable[Job]) -> float:
        """Return the engine time that ``jobs`` still need, one after the other."""
        rest = self.rest_steps
        return self.pixel_step * sum(
            self.weight(job.model)
            * pixels(job.request)
            * (evaluations(job.request, steps_done=job.steps_done) + rest)
            for job in jobs
        )
