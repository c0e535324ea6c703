"""Calibration of the batch limit: the time of a step by the images in it, measured at start."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final

import structlog

from service.core.events import BatchCalibrated, JobCancelled, Stepped
from service.core.spec import GenerationSpec
from service.diffusion.loop.step_loop import StepLoop, no_fault
from service.diffusion.loop.trials.trial import Trial, to_the_end

log = structlog.get_logger(__name__)

GAIN: Final = 0.05
"""Of an image's time; a larger batch that saves less makes everyone wait for little."""

STEPS: Final = 2
"""Of each batch: the first one loads kernels and fills caches, so that the fastest counts."""

BUDGET_SECONDS: Final = 20.0
"""Of the whole measurement."""

BATCHES: Final = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
NAME: Final = "calibration"
REQUEST: Final = GenerationSpec(prompt="calibration", steps=STEPS + 1)


def calibrate(
    loop: StepLoop,
    *,
    sizes: tuple[int, int],
    batch_limit: int,
    budget: float = BUDGET_SECONDS,
    clock: Callable[[], float] = time.monotonic,
) -> BatchCalibrated | None:
    """Measure at once; see ``calibration``."""
    return to_the_end(
        calibration(loop, sizes=sizes, batch_limit=batch_limit, budget=budget, clock=clock)
    )


def calibration(
    loop: StepLoop,
    *,
    sizes: tuple[int, int],
    batch_limit: int,
    budget: float = BUDGET_SECONDS,
    clock: Callable[[], float] = time.monotonic,
) -> Trial[BatchCalibrated | None]:
    """Measure batches of 1, 2, 3, 4, 6, 8, … images, and cap the loop's where the gain ends.

    ``sizes`` are those of the images: the first, or the second where three steps of the first
    would take more than the budget, as on a CPU. A batch that would not end in time is not
    begun, but one step of one image always is. Returns None, and caps nothing, where time or
    memory ended before the gain did.
    """
    until = clock() + budget
    fault, loop.fault = loop.fault, no_fault  # Those on purpose are for requests.
    try:
        wanted, small = sizes
        alone = yield from _step_seconds(loop, small, 1)
        dearer = (wanted / small) ** 2 * 3 * STEPS
        size = wanted if alone is not None and alone * dearer <= budget else small
        seconds = yield from _measured(loop, size, batch_limit, lambda: until - clock())
    finally:
        loop.fault = fault
    batch = chosen(seconds) if seconds else 0
    if batch == max(seconds, default=0) < batch_limit:
        log.info("batch_not_calibrated", measured=len(seconds), size=size)
        return None
    loop.limits.cap(batch)
    return BatchCalibrated(batch=batch, size=size, seconds=seconds)


def chosen(seconds: dict[int, float]) -> int:
    """Return the smallest batch whose time per image is within GAIN of the best."""
    each = {count: taken / count for count, taken in seconds.items()}
    best = min(each.values())
    return min(count for count, taken in each.items() if taken * (1 - GAIN) <= best)


def _measured(
    loop: StepLoop, size: int, most: int, left: Callable[[], float]
) -> Trial[dict[int, float]]:
    found: dict[int, float] = {}
    taken = 0.0
    for count in sorted({count for count in BATCHES if count < most} | {most}):
        # No batch takes longer than its images one after the other.
        if STEPS * taken * count > left():
            break
        seconds = yield from _step_seconds(loop, size, count)
        if seconds is None:
            break
        taken = seconds / count
        found[count] = seconds
        facts = {"images": count, "most": most, "size": size, "seconds": round(seconds, 3)}
        log.info("batch_measured", **facts)
    return found


def _step_seconds(loop: StepLoop, size: int, count: int) -> Trial[float | None]:
    """Return the time of a step of so many images; None where memory does not let them."""
    request = replace(REQUEST, width=size, height=size, num_images=count)
    found: list[float] = []
    loop.add(NAME, request)
    while loop.busy:
        yield
        for outcome in loop.step():
            if isinstance(outcome, Stepped) and outcome.batch_size == count:
                found.append(outcome.seconds)
            elif not isinstance(outcome, JobCancelled):
                loop.cancel(NAME)
        if len(found) >= STEPS:
            loop.cancel(NAME)  # Before the images are decoded, which is not measured.
    return min(found, default=None)
