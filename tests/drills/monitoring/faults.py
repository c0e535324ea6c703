"""All faults: those of memory, queues, jobs, the GPU, the disk, engines and services that die."""

import asyncio
import shutil
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Final

import psutil

from alerts.groups.steps import FEWEST_STEPS, LEVEL
from service.jobs.dispatch.circuit import CRASHES_TO_OPEN
from service.jobs.durable.wiring import FILE
from service.telemetry import labels
from tests.drills.monitoring import shortages  # noqa: F401 - its faults are the first ones
from tests.drills.monitoring.fault import ALL, driver, engine, fault
from tests.drills.monitoring.scene import BATCH, LIMITS, PLACES, SLOWER, Scene, SkippedError
from tests.support.load_client import background, every
from tests.support.monitoring.configs import ROOT
from tests.support.wait import until

__all__ = ["ALL"]  # Which ``shortages`` and the rest of this module fill.

LONG_SECONDS: Final = 32.0  # Longer than the 30 s in which an image shall be there.
BETWEEN_SECONDS: Final = 2.0
LATE_STEP_SECONDS: Final = 1.0
"""A slow step, but none that an engine is killed for: silence is borne for 5 s at least."""

LATE: Final = {"steps": 40, "sampler": "ddim"}  # Images of so many slow steps are late.
SPACING_SECONDS: Final = 4.0  # Between two failures of a service that fails now and then.
STEADY: Final = 1.2
COMPARABLE_SECONDS: Final = 550.0
COMPARED: Final = ("sd_step_duration_seconds", "sd_batch_size")
NEARLY_FULL: Final = int(0.97 * 6 * 2**30)
XID: Final = 79  # The GPU has fallen off the bus.
UNKNOWN_ERROR: Final = 999
KILLS: Final = 3
TWO: Final = 2
SEEN_SECONDS: Final = 60.0  # For a service that was just started to answer its first scrape.
STARTED: Final = 'process_start_time_seconds{job="sd-api"}'
DEMO: Final = ROOT / "service" / "demo"
RESTARTING: Final = "SDEngineRestarting"

fault("SDQueueDepthHigh", "Queue nearly full", "queue_full")(
    engine(BATCH + PLACES - 1, step_seconds=1)
)


@fault("SDConnectionsHigh", "Connections that say nothing")
async def connections_hoarded(scene: Scene) -> AsyncIterator[None]:
    """Open nine in ten of the connections that may be open, one after the other."""
    host, _, port = scene.service.address.rpartition(":")
    most = int(LIMITS["MAX_CONNECTIONS"]) * 9 // 10
    # Kept in a list: a writer that nobody holds any more closes its connection.
    hoard = [(await asyncio.open_connection(host, int(port)))[1] for _ in range(most)]
    try:
        yield
    finally:
        for writer in hoard:
            writer.transport.abort()


fault("SDErrorBudgetBurnFast", "Queue full, requests refused", "queue_refuses")(
    engine(BATCH + PLACES + 4, step_seconds=1)
)


@fault("SDErrorBudgetBurnSlow", "A request fails now and then")
async def some_requests_fail(scene: Scene) -> AsyncIterator[None]:
    """Fail one request in a few seconds."""

    async def again() -> None:
        scene.fail(oom={"text_encode": 2})

    async with scene.traffic.clients(2, steps=1), background(every(SPACING_SECONDS, again)):
        try:
            yield
        finally:
            scene.fail()


fault("SDQueueWaitHigh", "Requests wait for others", "queue_wait")(
    engine(BATCH + PLACES - 3, step_seconds=4)
)


@fault("SDLatencyBudgetBurnFast", "Images take over 30 s", silences=("SDLatencyBudgetBurnSlow",))
async def images_late(scene: Scene) -> AsyncIterator[None]:
    """Slow the steps down again and again: whole batches come late, and at the same time."""
    slowed = every(BETWEEN_SECONDS, lambda: _slowed(scene))
    async with scene.traffic.clients(2 * BATCH, **LATE):
        try:
            async with background(slowed):
                yield
        finally:
            scene.fail()


@fault("SDLatencyBudgetBurnSlow", "Some images took over 30 s")
async def some_images_late(scene: Scene) -> AsyncIterator[None]:
    """Slow the steps of one batch down; what follows is in time."""
    async with scene.traffic.clients(BATCH, **LATE):
        await _slowed(scene)
        yield


async def _slowed(scene: Scene) -> None:
    """Slow every step until all images in work are late."""
    scene.fail(step_seconds=LATE_STEP_SECONDS)
    await asyncio.sleep(LONG_SECONDS)
    scene.fail()


@fault("SDStepTimeRegressed", "Steps slower than before")
async def slow_steps(scene: Scene) -> AsyncIterator[None]:
    """Slow every step, after a time of normal ones to compare with."""

    async def figures(name: str) -> list[float]:
        asked = [f'{LEVEL}:{name}_{when}{{size_class="small"}}' for when in ("now", "day_ago")]
        return [await scene.stack.value(each) or 0.0 for each in asked]

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
        scene.restart_clock()
        scene.fail(step_seconds=(SLOWER - 1) * now)
        try:
            yield
        finally:
            scene.fail()


fault("SDQueueStuck", "A step never returns", "engine_hangs", silences=("SDQueueDepthHigh",))(
    engine(BATCH + PLACES - 1, hang=True)
)


@fault("SDUploadsRefused", "Images that are too many bytes for one key")
async def uploads_refused(scene: Scene) -> AsyncIterator[None]:
    """Send images that are larger than all that one key may send at a time."""
    too_many = 2 * int(LIMITS["UPLOADS_MAX_BYTES_PER_KEY"])
    async with scene.traffic.jobs(image="A" * too_many):
        yield


@fault("SDJobStoreFailing", "Job store locked by another program")
async def store_locked(scene: Scene) -> AsyncIterator[None]:
    """Hold the right to write, as a shell with a transaction left open does."""
    path = scene.service.folder / "data" / FILE
    async with scene.traffic.jobs():
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("PRAGMA busy_timeout = 10000")
            other.execute("BEGIN IMMEDIATE")
            yield


@fault("SDWebhooksFailing", "Webhooks to a receiver that takes none")
async def webhooks_refused(scene: Scene) -> AsyncIterator[None]:
    """Name an address that answers 404 to everybody."""
    async with scene.traffic.jobs(webhook=f"{scene.stack.webhook}no/such/path"):
        yield


@fault("SDClientsFailing", "Clients ask for what there is not", api=labels.PAGE)
async def clients_refused(scene: Scene) -> AsyncIterator[None]:
    """Let the clients of one API send what is refused; others have their images."""
    async with scene.traffic.refused(labels.PAGE), scene.traffic.clients(1):
        yield


fault("SDGpuHot", "GPU hot", "gpu_hot")(driver(temperature=96))
fault(*("SDGpuThrottled", "GPU held back under load"), "gpu_throttled", reason="hw_thermal")(
    driver(throttle="0x40", utilization=97, clock_sm=600)
)
fault("SDVramNearLimit", "GPU memory nearly full", "gpu_memory_full")(
    driver(memory_used=NEARLY_FULL)
)


@fault("SDGpuXid", "Driver reports a fault (XID 79)", xid=str(XID))
async def gpu_xid(scene: Scene) -> AsyncIterator[None]:
    scene.card.report_fault(XID)
    yield
    scene.card.set(xids=None)


fault("SDGpuEccErrors", "GPU memory lost data", "gpu_ecc")(driver(ecc_uncorrected=2))
fault("SDGpuLost", "GPU gone", "gpu_lost", silences=("SDGpuCollectorBroken",))(driver(lost=1))
fault("SDGpuCollectorBroken", "Driver answers with errors", "gpu_unreadable")(
    driver(errors=f"memory:{UNKNOWN_ERROR}")
)
fault("SDGpuCollectorBroken", "Driver does not answer", "gpu_driver_hangs")(driver(hang=60))


@fault("SDDiskFilling", "Disk for models full", volume="models")
async def disk_fills(scene: Scene) -> AsyncIterator[None]:
    """Write until the disk is full."""
    if scene.disk is None:
        raise SkippedError("no file system of our own can be mounted here (needs root)")
    ballast = scene.disk / "ballast"
    try:
        with ballast.open("wb") as file, suppress(OSError):  # Full, as it shall be.
            while file.write(bytes(2**16)):
                pass
        yield
    finally:
        ballast.unlink()


@fault(RESTARTING, "Engine stopped (SIGSTOP) in a step", reason="stalled")
async def engine_stopped(scene: Scene) -> AsyncIterator[None]:
    """Stop the engine, so that the service finds it stalled."""
    (await scene.service.engine()).suspend()
    async with scene.traffic.clients(BATCH):
        yield


@fault(RESTARTING, "Engine killed (SIGKILL)", reason="killed", severity="ticket")
async def engine_killed(scene: Scene) -> AsyncIterator[None]:
    await scene.service.kill_engine()
    yield


async def _kill_engines(scene: Scene, count: int) -> None:
    """Kill the engine and those that follow it."""
    last = None
    for _ in range(count):
        last = await scene.service.kill_engine(after=last)


@fault(RESTARTING, "Engine killed again and again", severity="page", silences=(RESTARTING,))
async def engine_keeps_dying(scene: Scene) -> AsyncIterator[None]:
    await _kill_engines(scene, KILLS)
    yield


@fault("SDEngineCircuitOpen", "Engine killed until it is not trusted", silences=(RESTARTING,))
async def engine_not_trusted(scene: Scene) -> AsyncIterator[None]:
    """Kill one engine after the other; the first image afterwards proves the last one."""
    await _kill_engines(scene, CRASHES_TO_OPEN)

    async def trusted() -> bool:
        return await scene.stack.value('sd_engine_state{state="circuit_open"}') == 0

    try:
        yield
    finally:
        async with scene.traffic.clients(1):
            await until(trusted, SEEN_SECONDS, "the circuit closed")


@fault("SDNotReady", "Next engine stops while loading", silences=("SDQueueDepthHigh",))
async def engine_never_ready(scene: Scene) -> AsyncIterator[None]:
    """Stop the engine that follows a killed one while it loads."""
    process = await scene.service.engine(after=await scene.service.kill_engine())
    process.suspend()
    try:
        async with scene.traffic.clients(PLACES - 1):
            yield
    finally:
        with suppress(psutil.NoSuchProcess):
            process.resume()


@fault("SDEngineLost", "Next of two engines stops while loading")
async def engine_of_two_lost(scene: Scene) -> AsyncIterator[None]:
    """Stop the engine that follows a killed one of two; the other works on."""
    await scene.start(ENGINES="2")

    async def both() -> bool:
        return await scene.stack.value('sum(sd_engine_state{state="ready"})') == TWO

    await until(both, SEEN_SECONDS, "two engines ready")
    first, second = scene.service.engines()

    async def next_one() -> psutil.Process | None:
        new = (each for each in scene.service.engines() if each not in (first, second))
        return next(new, None)

    scene.restart_clock()
    second.kill()
    process = await until(next_one, SEEN_SECONDS, "the next engine")
    process.suspend()
    try:
        yield
    finally:
        with suppress(psutil.NoSuchProcess):
            process.resume()
        await scene.start()


@fault("SDTargetDown", "Service killed (SIGKILL)")
async def service_killed(scene: Scene) -> AsyncIterator[None]:
    """Kill the service, and start it anew afterwards."""
    scene.service.kill()
    try:
        yield
    finally:
        await scene.start()


@fault("SDServiceRestarting", "Service killed again and again")
async def service_keeps_dying(scene: Scene) -> AsyncIterator[None]:
    """Kill the service and those that follow it, each once it was scraped."""
    for _ in range(KILLS):
        last = await scene.stack.value(STARTED)
        scene.service.kill()
        await scene.start()

        async def another(last: float | None = last) -> bool:
            return await scene.stack.value(STARTED) not in {None, last}

        await until(another, SEEN_SECONDS, "the next service scraped")
    yield


@fault("SDModelNotLoaded", "Model's weights cannot be read", silences=("SDErrorBudgetBurnFast",))
async def model_broken(scene: Scene) -> AsyncIterator[None]:
    """Start the service with weights that cannot be read."""
    folder = scene.service.folder / "broken"
    await asyncio.to_thread(_broken_copy, folder)
    await scene.start(MODEL_ID=str(folder))
    try:
        async with scene.traffic.clients(3):
            yield
    finally:
        await scene.start()


def _broken_copy(folder: Path) -> None:
    """Copy the demo model, with the weights of the UNet cut short."""
    if not folder.exists():
        shutil.copytree(DEMO, folder)
    (weights,) = (folder / "unet").glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:1000])
