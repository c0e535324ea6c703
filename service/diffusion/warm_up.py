"""The first pictures of a model, made before anyone waits: they measure what pictures take."""

from dataclasses import replace

import structlog

from service.diffusion.generation import (
    Capacity,
    GenerationRequest,
    JobFailed,
    OutOfMemoryHit,
    Stepped,
    Usual,
)
from service.diffusion.step_loop import StepLoop, no_fault

log = structlog.get_logger(__name__)


def warm_up(
    loop: StepLoop, *, size: int, batch_limit: int
) -> list[OutOfMemoryHit | Usual | Capacity]:
    """Make two pictures of ``size`` x ``size``, then two of twice that at once, a step each.

    The first one loads kernels and fills caches, and is not counted. The others make the
    lines from which the need of other sizes and batches is foretold (``footprint.Line``).
    Returns what the service must hear of: that memory ran out, how long steps took, and how
    much there is. A model that fails is only logged: the first request will tell its client why.
    """
    small = GenerationRequest(prompt="warm-up", width=size, height=size, steps=1)
    large = replace(small, width=2 * size, num_images=min(2, batch_limit))
    worth_telling: list[OutOfMemoryHit | Usual | Capacity] = []
    fault, loop.fault = loop.fault, no_fault  # Those on purpose are for requests.
    for number, request in enumerate((small, small, large)):
        if number == 1:
            loop.forget_footprint()
        loop.add(f"warm-up-{number}", request)
        while loop.busy:
            for outcome in loop.step():
                if isinstance(outcome, JobFailed):
                    log.warning("warm_up_failed", code=outcome.code, detail=outcome.detail)
                elif isinstance(outcome, OutOfMemoryHit):
                    worth_telling.append(outcome)
                elif isinstance(outcome, Stepped) and number:
                    worth_telling.append(_usual(outcome))
    loop.fault = fault
    if (capacity := loop.capacity()) is not None:
        worth_telling.append(capacity)
    return worth_telling


def _usual(step: Stepped) -> Usual:
    pictures = step.batch_size
    return Usual(pixels=step.pixels // pictures, pictures=pictures, seconds=step.seconds)
