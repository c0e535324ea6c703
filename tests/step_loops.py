"""Step loops in tests: driving them to the end, and faults at their stages."""

from collections.abc import Callable
from typing import Any

import torch

from service.diffusion.generation import Outcome
from service.diffusion.step_loop import Fault, StepLoop


def drained(loop: StepLoop) -> list[Outcome]:
    """Step until nothing is left to do."""
    found: list[Outcome] = []
    while loop.busy:
        found += loop.step()
    return found


def of(kind: type[Any], outcomes: list[Outcome]) -> list[Any]:
    """Pick the outcomes of one kind."""
    return [outcome for outcome in outcomes if isinstance(outcome, kind)]


def raising(*raises: tuple[str, int, int], error: Callable[[], Exception]) -> Fault:
    """Return a fault that raises at a stage, for at least so many pictures, so many times."""
    left = {(stage, pictures): times for stage, pictures, times in raises}

    def fault(stage: str, pictures: int) -> None:
        for (where, least), times in left.items():
            if stage == where and pictures >= least and times > 0:
                left[where, least] -= 1
                raise error()

    return fault


def no_memory() -> Exception:
    """Make the error that a full GPU raises."""
    return torch.OutOfMemoryError("CUDA out of memory.")
