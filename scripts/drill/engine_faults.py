"""Engines that stop, are killed or never come up, and a service that is gone."""

import asyncio
import contextlib
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

import psutil

from scripts.drill.configs import ROOT
from scripts.drill.scene import Scene, fault
from scripts.drill.service import BATCH, PLACES
from scripts.drill.wait import until
from service.jobs.circuit import CRASHES_TO_OPEN

KILLS: Final = 3
SEEN_SECONDS: Final = 60.0
"""For a service that was just started to answer its first scrape."""
STARTED: Final = 'process_start_time_seconds{job="sd-api"}'
DEMO: Final = ROOT / "service" / "demo"


@fault("SDEngineRestarting", "Engine stopped (SIGSTOP) in a step", reason="stalled")
@asynccontextmanager
async def engine_stopped(scene: Scene) -> AsyncIterator[None]:
    """Stop the engine, so that the service finds it stalled."""
    engine = await scene.service.engine()
    engine.suspend()
    async with scene.traffic.clients(BATCH):
        yield


@fault("SDEngineRestarting", "Engine killed (SIGKILL)", reason="killed", severity="ticket")
@asynccontextmanager
async def engine_killed(scene: Scene) -> AsyncIterator[None]:
    """Kill the engine, as the kernel does when memory runs out."""
    await scene.service.kill_engine()
    yield


@fault(
    "SDEngineRestarting",
    "Engine killed again and again",
    severity="page",
    silences=("SDEngineRestarting",),
)
@asynccontextmanager
async def engine_keeps_dying(scene: Scene) -> AsyncIterator[None]:
    """Kill the engine and those that follow it."""
    last = await scene.service.kill_engine()
    for _ in range(KILLS - 1):
        last = await scene.service.next_engine(last)
        last.send_signal(signal.SIGKILL)
    yield


@fault(
    "SDEngineCircuitOpen",
    "Engine killed until it is not trusted",
    silences=("SDEngineRestarting",),
)
@asynccontextmanager
async def engine_not_trusted(scene: Scene) -> AsyncIterator[None]:
    """Kill one engine after the other; the first picture afterwards proves the last one."""
    last = await scene.service.kill_engine()
    for _ in range(CRASHES_TO_OPEN - 1):
        last = await scene.service.next_engine(last)
        last.send_signal(signal.SIGKILL)
    try:
        yield
    finally:
        async with scene.traffic.clients(1):
            await until(partial(_trusted, scene), SEEN_SECONDS, "the circuit closed")


async def _trusted(scene: Scene) -> bool:
    return await scene.stack.value('sd_engine_state{state="circuit_open"}') == 0


@fault("SDNotReady", "Next engine stops while loading", silences=("SDQueueDepthHigh",))
@asynccontextmanager
async def engine_never_ready(scene: Scene) -> AsyncIterator[None]:
    """Stop the engine that follows a killed one while it loads."""
    last = await scene.service.kill_engine()
    engine = await scene.service.next_engine(last)
    engine.suspend()
    try:
        async with scene.traffic.clients(PLACES - 1):
            yield
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            engine.resume()


@fault("SDTargetDown", "Service killed (SIGKILL)")
@asynccontextmanager
async def service_killed(scene: Scene) -> AsyncIterator[None]:
    """Kill the service, and start it anew afterwards."""
    await scene.service.child.kill()
    try:
        yield
    finally:
        await scene.service.start(ready=False)


@fault("SDServiceRestarting", "Service killed again and again")
@asynccontextmanager
async def service_keeps_dying(scene: Scene) -> AsyncIterator[None]:
    """Kill the service and those that follow it, each once it was scraped."""
    for _ in range(KILLS):
        last = await scene.stack.value(STARTED)
        await scene.service.child.kill()
        await scene.service.start(ready=False)
        await until(partial(_another, scene, last), SEEN_SECONDS, "the next service scraped")
    yield


async def _another(scene: Scene, last: float | None) -> bool:
    return await scene.stack.value(STARTED) not in {None, last}


@fault("SDModelNotLoaded", "Model's weights cannot be read", silences=("SDErrorBudgetBurnFast",))
@asynccontextmanager
async def model_broken(scene: Scene) -> AsyncIterator[None]:
    """Start the service with weights that cannot be read."""
    folder = scene.service.folder / "broken"
    await asyncio.to_thread(_broken_copy, folder)
    await scene.service.start(ready=False, MODEL_ID=str(folder))
    try:
        async with scene.traffic.clients(3):
            yield
    finally:
        await scene.service.start(ready=False)


def _broken_copy(folder: Path) -> None:
    """Copy the demo model, with the weights of the UNet cut short."""
    if not folder.exists():
        shutil.copytree(DEMO, folder)
    (weights,) = (folder / "unet").glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:1000])
