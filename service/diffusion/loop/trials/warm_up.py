"""The first images of a model, made before anyone waits: they measure what images take."""

import time
from dataclasses import replace
from typing import Any, Final

import structlog

from service.core.capacity import Capacity
from service.core.events import JobFailed, OutOfMemoryHit, StepBaseline, Stepped
from service.core.inputs import EngineInputs, InputImage
from service.core.model import ModelInfo
from service.core.spec import GenerationSpec
from service.diffusion.load import Model
from service.diffusion.loop.decode import broken_weights
from service.diffusion.loop.step_loop import StepLoop, no_fault
from service.diffusion.loop.trials.trial import Trial, to_the_end
from service.errors import ModelUnsuitable, OutOfMemory

log = structlog.get_logger(__name__)

IMAGES: Final = 3

Learned = list[OutOfMemoryHit | StepBaseline | Capacity]


def warm_up(loop: StepLoop, *, size: int, batch_limit: int, large: int | None = None) -> Learned:
    """Make all trial images at once; see ``first_images``."""
    return to_the_end(first_images(loop, size=size, batch_limit=batch_limit, large=large))


def first_images(
    loop: StepLoop, *, size: int, batch_limit: int, large: int | None = None
) -> Trial[Learned]:
    """Make two images of ``size`` x ``size``, then two larger ones at once, a step each.

    The larger ones are of ``large`` x ``large``, the size that most requests will have; without
    one, or where it is no larger, they are twice as wide. All but the first begin with an image,
    so that encoding one is measured, too.
    The first one loads kernels and fills caches, and is not counted. The others make the
    lines from which the need of other sizes and batches is estimated (``memory.model.Line``).
    Returns the events for the service: that memory ran out, how long steps took, and how much
    memory there is.

    Raises:
        ModelUnsuitable: no image could be made, and not for want of memory: none ever will.

    """
    sampler, steps = _possible(loop.model.info)
    small = GenerationSpec(prompt="warm-up", width=size, height=size, steps=steps, sampler=sampler)
    failures: list[JobFailed] = []
    wide = _redrawn(replace(_larger(small, large), num_images=min(2, batch_limit)))
    events: Learned = []
    fault, loop.fault = loop.fault, no_fault  # Those on purpose are for requests.
    for number, request in enumerate((small, _redrawn(small), wide)):
        if number == 1:
            loop.memory_model.forget()
        pixels = bytes(3 * request.width * request.height) if request.image else b""
        loop.add(f"warm-up-{number}", request, inputs=EngineInputs(image=pixels))
        since = time.monotonic()
        while loop.busy:
            yield
            for outcome in loop.step():
                if isinstance(outcome, JobFailed):
                    failures.append(outcome)
                    log.warning("warm_up_failed", code=outcome.code, detail=outcome.detail)
                elif isinstance(outcome, OutOfMemoryHit):
                    events.append(outcome)
                elif isinstance(outcome, Stepped) and number:
                    events.append(_baseline(outcome))
        log.info("trial_image_ended", **_facts(loop, request, number, time.monotonic() - since))
    loop.fault = fault
    if len(failures) == IMAGES and all(one.code != OutOfMemory.code for one in failures):
        raise _unsuitable(loop.model, failures[0])
    if (capacity := loop.budget.capacity()) is not None:
        events.append(capacity)
    return events


def _larger(small: GenerationSpec, side: int | None) -> GenerationSpec:
    if side is None or side <= small.width:
        return replace(small, width=2 * small.width)
    return replace(small, width=side, height=side)


def _redrawn(request: GenerationSpec) -> GenerationSpec:
    """Return a request that begins with an image, through all of its steps."""
    image = InputImage(digest="", width=request.width, height=request.height)
    return replace(request, image=image, strength=1.0)


def _possible(info: ModelInfo) -> tuple[str, int]:
    """Return a sampler and the fewest steps that it can take with this model."""
    usable = (
        (ranges[0][0], sampler != GenerationSpec.sampler, sampler)
        for sampler, ranges in info.samplers.items()
        if ranges
    )
    steps, _, sampler = min(usable, default=(1, False, GenerationSpec.sampler))
    return sampler, steps


def _unsuitable(model: Model, failure: JobFailed) -> ModelUnsuitable:
    broken = broken_weights(model)
    cause = f"{broken} holds NaN or infinite values" if broken else failure.detail
    cure = " The file is damaged, or was saved so: use another copy of the model." if broken else ""
    return ModelUnsuitable(
        f"{model.info.model_id} draws nothing: all {IMAGES} trial images failed ({cause}).{cure}"
    )


def _facts(loop: StepLoop, request: GenerationSpec, number: int, seconds: float) -> dict[str, Any]:
    """Return what is logged of a trial image: how far the trial is, and how long it took."""
    return {
        "model_id": loop.model.info.model_id,
        "image": number + 1,
        "images": IMAGES,
        "width": request.width,
        "height": request.height,
        "seconds": round(seconds, 3),
    }


def _baseline(step: Stepped) -> StepBaseline:
    images = step.batch_size
    return StepBaseline(pixels=step.pixels // images, images=images, seconds=step.seconds)
