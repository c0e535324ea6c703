"""A queue that is full, slow or stuck, and the objectives that suffer from it."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from alerts.steps import FEWEST_STEPS, LEVEL
from scripts.drill.scene import Scene, fault
from scripts.drill.service import BATCH, PLACES
from scripts.drill.wait import until

LONG_SECONDS: Final = 32.0
"""Longer than the 30 s in which a picture shall be there."""
BETWEEN_SECONDS: Final = 2.0
LATE_STEP_SECONDS: Final = 1.0
"""A slow step, but none that an engine is killed for: silence is borne for 5 s at least."""
LATE: Final = {"steps": 40, "sampler": "ddim"}
"""Pictures of so many slow steps are late."""
SPACING_SECONDS: Final = 4.0
"""Between two failures of a service that fails now and then."""
SLOWER: Final = 2.0
"""Times as long as usual: far beyond the 1.3 from which on it is reported."""

STEADY: Final = 1.2
COMPARABLE_SECONDS: Final = 550.0
COMPARED: Final = ("sd_step_duration_seconds", "sd_batch_size")


@fault("SDQueueDepthHigh", "Queue nearly full")
@asynccontextmanager
async def queue_full(scene: Scene) -> AsyncIterator[None]:
    """Send as many requests as fit in."""
    scene.service.fail(step_seconds=1.0)
    async with scene.traffic.clients(BATCH + PLACES - 1):
        yield
        scene.service.fail()


@fault("SDErrorBudgetBurnFast", "Queue full, requests refused")
@asynccontextmanager
async def queue_refuses(scene: Scene) -> AsyncIterator[None]:
    """Send more requests than fit in."""
    scene.service.fail(step_seconds=1.0)
    async with scene.traffic.clients(BATCH + PLACES + 4):
        yield
        scene.service.fail()


@fault("SDErrorBudgetBurnSlow", "A request fails now and then")
@asynccontextmanager
async def some_requests_fail(scene: Scene) -> AsyncIterator[None]:
    """Fail one request in a few seconds."""

    async def now_and_then() -> None:
        while True:
            scene.service.fail(oom={"text_encode": 2})
            await asyncio.sleep(SPACING_SECONDS)

    async with scene.traffic.clients(2, steps=1):
        task = asyncio.create_task(now_and_then())
        try:
            yield
        finally:
            task.cancel()
            scene.service.fail()


@fault("SDQueueWaitHigh", "Requests wait for others")
@asynccontextmanager
async def queue_wait(scene: Scene) -> AsyncIterator[None]:
    """Slow the engine down until requests wait for each other."""
    scene.service.fail(step_seconds=4.0)
    async with scene.traffic.clients(BATCH + PLACES - 3):
        yield
        scene.service.fail()


@fault("SDLatencyBudgetBurnFast", "Pictures take over 30 s", silences=("SDLatencyBudgetBurnSlow",))
@asynccontextmanager
async def pictures_late(scene: Scene) -> AsyncIterator[None]:
    """Slow the steps down again and again: whole batches come late, and at the same time."""

    async def again() -> None:
        while True:
            await _slowed(scene)
            await asyncio.sleep(BETWEEN_SECONDS)

    async with scene.traffic.clients(2 * BATCH, **LATE):
        task = asyncio.create_task(again())
        try:
            yield
        finally:
            task.cancel()
            scene.service.fail()


@fault("SDLatencyBudgetBurnSlow", "Some pictures took over 30 s")
@asynccontextmanager
async def some_pictures_late(scene: Scene) -> AsyncIterator[None]:
    """Slow the steps of one batch down; what follows is in time."""
    async with scene.traffic.clients(BATCH, **LATE):
        await _slowed(scene)
        yield


async def _slowed(scene: Scene) -> None:
    """Slow every step until all pictures in work are late."""
    scene.service.fail(step_seconds=LATE_STEP_SECONDS)
    await asyncio.sleep(LONG_SECONDS)
    scene.service.fail()


@fault("SDStepTimeRegressed", "Steps slower than before")
@asynccontextmanager
async def slow_steps(scene: Scene) -> AsyncIterator[None]:
    """Slow every step, after a time of normal ones to compare with."""

    async def figures(name: str) -> list[float]:
        found = [
            await scene.stack.value(f'{LEVEL}:{name}_{when}{{size_class="small"}}')
            for when in ("now", "day_ago")
        ]
        return [each or 0.0 for each in found]

    # From then on both windows hold the same traffic: larger batches are slower, too.
    known = time.time() + scene.windows.step_offset.seconds + scene.windows.step_before.seconds

    async def comparable() -> bool:
        if time.time() < known or min(await figures("sd_steps:count")) < FEWEST_STEPS:
            return False
        pairs = [await figures(f"{name}:mean") for name in COMPARED]
        return all(1 / STEADY < now / before < STEADY for now, before in pairs)

    async with scene.traffic.clients(1, steps=50):
        await until(comparable, COMPARABLE_SECONDS, "normal steps to compare with")
        now, _ = await figures(f"{COMPARED[0]}:mean")
        scene.clock.restart()
        scene.service.fail(step_seconds=(SLOWER - 1) * now)
        try:
            yield
        finally:
            scene.service.fail()


@fault("SDQueueStuck", "A step never returns", silences=("SDQueueDepthHigh",))
@asynccontextmanager
async def engine_hangs(scene: Scene) -> AsyncIterator[None]:
    """Let a step not return."""
    scene.service.fail(hang=True)
    async with scene.traffic.clients(BATCH + PLACES - 1):
        yield
        scene.service.fail()
