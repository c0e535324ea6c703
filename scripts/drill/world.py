"""The whole drill ground: service, GPU driver, disk, traffic and the monitoring stack."""

import asyncio
import math
import os
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import aiohttp

from alerts.rule import Links
from alerts.rules import render
from alerts.steps import FEWEST_STEPS
from alerts.windows import SHORT, Span, Windows
from scripts.drill.child import started
from scripts.drill.queue_faults import SLOWER
from scripts.drill.scene import Expected, Scene
from scripts.drill.service import Service, service_in
from scripts.drill.stack import Stack, running_stack
from scripts.drill.traffic import Traffic
from scripts.drill.wait import until
from scripts.drill.watch import WATCHDOG, Watch, watching
from tests.nvml.driver import Driver, NoCompilerError

DISK_BYTES: Final = 64 * 2**20
BUSY_WATTS: Final = 90
IDLE_WATTS: Final = 30
PULSE_SECONDS: Final = 1.0
FIRST_SECONDS: Final = 120.0


@dataclass(frozen=True, kw_only=True)
class World:
    """What a run works with."""

    scene: Scene
    stack: Stack
    watch: Watch
    windows: Windows
    rules: str
    begun: float


@asynccontextmanager
async def world(
    folder: Path, *, normal: Windows | None = None, seconds: int = 1
) -> AsyncIterator[World]:
    """Build it, wait until all of it works, and take it down whatever happens.

    With ``normal`` windows nothing is shortened; else they suit this machine's speed.
    """
    async with AsyncExitStack() as parts:
        driver = _driver(folder)
        disk = await parts.enter_async_context(_disk(folder / "disk"))
        environment = dict(driver.environment) if driver else {}
        if disk is not None:
            environment["MODEL_CACHE_DIR"] = str(disk)
        service = await parts.enter_async_context(service_in(folder, environment))
        await service.start()
        traffic = Traffic(service.url)
        await traffic.few()
        step = await _step_seconds(service)
        windows = normal or suited(step)
        rules = render(windows, Links())
        stack = await parts.enter_async_context(
            running_stack(folder, rules=rules, service=service.address, seconds=seconds)
        )
        begun = time.time()
        scene = Scene(
            service=service,
            stack=stack,
            traffic=traffic,
            step_seconds=step,
            windows=windows,
            driver=driver,
            disk=disk,
        )
        watch = await parts.enter_async_context(watching(stack))
        await parts.enter_async_context(traffic.clients(1))
        if driver is not None:
            await parts.enter_async_context(_pulse(driver, traffic))
        await _awake(stack)
        await traffic.tour()
        yield World(
            scene=scene, stack=stack, watch=watch, windows=windows, rules=rules, begun=begun
        )


def suited(step: float) -> Windows:
    """Return short windows in which this machine does enough steps to compare.

    A slowed step takes ``SLOWER`` times as long; a third more allows for all else.
    """
    needed = Span(max(SHORT.step_now.seconds, math.ceil(4 / 3 * FEWEST_STEPS * SLOWER * step)))
    return replace(SHORT, step_now=needed, step_before=needed, step_offset=needed)


def _driver(folder: Path) -> Driver | None:
    try:
        return Driver(folder)
    except NoCompilerError:
        return None


@asynccontextmanager
async def _disk(folder: Path) -> AsyncIterator[Path | None]:
    """Mount a small file system, if we may."""
    await asyncio.to_thread(folder.mkdir)
    mount, unmount = shutil.which("mount"), shutil.which("umount")
    if os.geteuid() != 0 or mount is None or unmount is None:
        yield None
        return
    options = f"size={DISK_BYTES}"
    command: list[str | Path] = [mount, "-t", "tmpfs", "-o", options, "tmpfs", folder]
    if await _done(command, folder.with_suffix(".log")) != 0:
        yield None
        return
    try:
        yield folder
    finally:
        await asyncio.shield(_done([unmount, "--lazy", folder], folder.with_suffix(".log")))


async def _done(command: list[str | Path], output: Path) -> int:
    async with started(command, output) as child:
        return await child.process.wait()


async def _step_seconds(service: Service) -> float:
    """Return the mean time of a small step so far, from the service's own metrics."""
    wanted = {f'sd_step_duration_seconds_{part}{{size_class="small"}}' for part in ("sum", "count")}
    async with aiohttp.ClientSession() as session, session.get(f"{service.url}/metrics") as answer:
        lines = (await answer.text()).splitlines()
    values = {
        key: float(value)
        for key, _, value in (line.rpartition(" ") for line in lines)
        if key in wanted
    }
    count, total = (values[key] for key in sorted(wanted))
    return total / count


@asynccontextmanager
async def _pulse(driver: Driver, traffic: Traffic) -> AsyncIterator[None]:
    """Let the GPU's figures move with the work: power, and the energy that it takes."""

    async def beat() -> None:
        joules, served = 1000.0, traffic.served
        while True:
            await asyncio.sleep(PULSE_SECONDS)
            busy = traffic.served > served
            served = traffic.served
            watts = BUSY_WATTS if busy else IDLE_WATTS
            joules += watts * PULSE_SECONDS
            driver.set(power=watts * 1000, energy=int(joules * 1000))

    task = asyncio.create_task(beat())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _awake(stack: Stack) -> None:
    """Wait for the first scrape and the first notification, which is the dead man's switch."""

    async def scraped() -> bool:
        return await stack.value('up{job="sd-api"}') == 1

    async def told() -> bool:
        return stack.receiver.first(Expected(alert=WATCHDOG), "firing", 0.0) is not None

    await until(scraped, FIRST_SECONDS, "the first scrape")
    await until(told, FIRST_SECONDS, f"{WATCHDOG} delivered")
