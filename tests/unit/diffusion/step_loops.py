"""Step loops in tests: driving them to the end, and faults at their stages."""

from collections.abc import Callable, Iterable
from typing import Any

import torch

from service.core.events import LoopEvent
from service.diffusion.loop.step_loop import Fault, StepLoop


def drained(loop: StepLoop) -> list[LoopEvent]:
    """Step until nothing is left to do."""
    found: list[LoopEvent] = []
    while loop.busy:
        found += loop.step()
    return found


def of(kind: type[Any], outcomes: Iterable[object]) -> list[Any]:
    """Pick the outcomes of one kind."""
    return [outcome for outcome in outcomes if isinstance(outcome, kind)]


def raising(*raises: tuple[str, int, int], error: Callable[[], Exception]) -> Fault:
    """Return a fault that raises at a stage, for at least so many images, so many times."""
    left = {(stage, images): times for stage, images, times in raises}

    def fault(stage: str, images: int) -> None:
        for (where, least), times in left.items():
            if stage == where and images >= least and times > 0:
                left[where, least] -= 1
                raise error()

    return fault


def no_memory() -> Exception:
    """Make the error that a full GPU raises."""
    return torch.OutOfMemoryError("CUDA out of memory.")
