"""The first pictures of a model, made before anyone waits: they measure what pictures take."""

from dataclasses import replace
from typing import Final

import structlog

from service.diffusion.decode import broken_weights
from service.diffusion.generation import (
    Capacity,
    GenerationRequest,
    JobFailed,
    ModelInfo,
    OutOfMemoryHit,
    Stepped,
    Usual,
)
from service.diffusion.load import Model
from service.diffusion.step_loop import StepLoop, no_fault
from service.errors import ModelUnsuitable, OutOfMemory

log = structlog.get_logger(__name__)

PICTURES: Final = 3
USUAL_SAMPLER: Final = "dpmpp_2m"


def warm_up(
    loop: StepLoop, *, size: int, batch_limit: int
) -> list[OutOfMemoryHit | Usual | Capacity]:
    """Make two pictures of ``size`` x ``size``, then two of twice that at once, a step each.

    The first one loads kernels and fills caches, and is not counted. The others make the
    lines from which the need of other sizes and batches is foretold (``footprint.Line``).
    Returns what the service must hear of: that memory ran out, how long steps took, and how
    much there is.

    Raises:
        ModelUnsuitable: no picture could be made, and not for want of memory: none ever will.

    """
    sampler, steps = _possible(loop.model.info)
    small = GenerationRequest(
        prompt="warm-up", width=size, height=size, steps=steps, sampler=sampler
    )
    failures: list[JobFailed] = []
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
                    failures.append(outcome)
                    log.warning("warm_up_failed", code=outcome.code, detail=outcome.detail)
                elif isinstance(outcome, OutOfMemoryHit):
                    worth_telling.append(outcome)
                elif isinstance(outcome, Stepped) and number:
                    worth_telling.append(_usual(outcome))
    loop.fault = fault
    if len(failures) == PICTURES and all(one.code != OutOfMemory.code for one in failures):
        raise _unsuitable(loop.model, failures[0])
    if (capacity := loop.capacity()) is not None:
        worth_telling.append(capacity)
    return worth_telling


def _possible(info: ModelInfo) -> tuple[str, int]:
    """Return a sampler and the fewest steps that it can take with this model."""
    usable = (
        (ranges[0][0], sampler != USUAL_SAMPLER, sampler)
        for sampler, ranges in info.samplers.items()
        if ranges
    )
    steps, _, sampler = min(usable, default=(1, False, USUAL_SAMPLER))
    return sampler, steps


def _unsuitable(model: Model, failure: JobFailed) -> ModelUnsuitable:
    broken = broken_weights(model)
    cause = f"{broken} holds NaN or infinite values" if broken else failure.detail
    cure = " The file is damaged, or was saved so: use another copy of the model." if broken else ""
    return ModelUnsuitable(
        f"{model.info.model_id} draws nothing: all {PICTURES} trial images failed ({cause}).{cure}"
    )


def _usual(step: Stepped) -> Usual:
    pictures = step.batch_size
    return Usual(pixels=step.pixels // pictures, pictures=pictures, seconds=step.seconds)
