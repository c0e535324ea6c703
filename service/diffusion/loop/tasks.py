"""The jobs inside the step loop, and work on them that may fail."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

from service.core.events import LoopEvent
from service.core.stage import Stage
from service.diffusion.adapters.store import AdapterStore
from service.diffusion.job_errors import failed
from service.diffusion.loop.order import Task
from service.diffusion.memory.oom_recovery import OomRecovery
from service.diffusion.memory.usage import is_device_lost

T = TypeVar("T")


class Tasks(dict[str, Task]):
    """Jobs by their ids; an error in the work on one ends it, and no other."""

    def __init__(self, adapters: AdapterStore, recovery: OomRecovery) -> None:
        super().__init__()
        self.outcomes: list[LoopEvent] = []
        """What there is to report."""
        self._adapters, self._recovery = adapters, recovery

    def attempt(
        self,
        task: Task,
        stage: Stage,
        work: Callable[[], T],
        *,
        latents: torch.Size | None = None,
        once: bool = False,
    ) -> T | None:
        """Do one image's work; if it fails its job fails, and None is returned.

        ``latents`` is the shape of what the VAE works on, and ``once`` work is not repeated.

        Raises:
            Exception: the GPU's context is lost (``memory.is_device_lost``).

        """
        try:
            return self._recovery.run(stage, work, latents=latents, once=once)
        except Exception as error:
            if is_device_lost(error):
                raise
            self.fail(task, error)
        return None

    @contextmanager
    def timed(self, task: Task, stage: Stage) -> Iterator[None]:
        """Count the time of a job's work; what ran out of memory and is lost counts nowhere."""
        started = time.perf_counter() - self._recovery.lost
        try:
            yield
        finally:
            task.seconds[stage] += time.perf_counter() - self._recovery.lost - started

    def fail(self, task: Task, error: Exception) -> None:
        """End a job, if it has not ended yet."""
        if self.alive(task):
            self.remove(task)
            self.outcomes.append(failed(task, error))

    def remove(self, task: Task) -> None:
        """Take a job out."""
        del self[task.job_id]
        self._adapters.give_back(task.adapters)

    def alive(self, task: Task) -> bool:
        """Tell whether a job is still here."""
        return self.get(task.job_id) is task
