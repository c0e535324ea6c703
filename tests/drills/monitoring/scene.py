"""All that a fault can reach: service, GPU driver, disk, traffic and the monitoring stack."""

import asyncio
import base64
import itertools
import json
import math
import os
import shutil
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

from aiohttp import web

from alerts.groups.steps import FEWEST_STEPS
from alerts.rule import Links
from alerts.rules import render
from alerts.windows import SHORT, Span, Windows
from service.http.route import CLIENT
from service.telemetry import labels
from tests.drills.common.orders import PROMPTS
from tests.drills.common.report import MIB, SETTINGS
from tests.nvml.driver import Driver, NoCompilerError
from tests.support.jobs.photos import png
from tests.support.load_client import Client, background, client_of, every
from tests.support.monitoring.stack import WATCHDOG, Expected, Stack, running_stack
from tests.support.receiver import Accept, receiving
from tests.support.service_process import ServiceProcess, service_in
from tests.support.wait import until

BATCH: Final = 6
PLACES: Final = 16
LIMITS: Final = {
    **SETTINGS,
    "MAX_CONCURRENT_REQUESTS": str(BATCH),
    "QUEUE_SIZE": str(PLACES),
    "MIN_SIZE": "128",
    "MAX_SIZE": "4096",
    "REQUEST_TIMEOUT_SECONDS": "200",
    "UPLOADS_MAX_BYTES_PER_KEY": str(MIB),
}
SMALL: Final = {
    "prompt": PROMPTS[0],
    "width": 128,
    "height": 128,
    "steps": 4,
    "guidance_scale": 3.0,
}
"""A denoising step of it takes 10 to 30 ms of one core."""

SAMPLERS: Final = ("dpmpp_2m", "euler", "euler_a", "ddim", "heun")
TOUR: Final[tuple[dict[str, Any], ...]] = (
    *({"sampler": sampler} for sampler in SAMPLERS),
    {"num_images": 2},
    {"width": 256, "height": 256},
    {"width": 512, "height": 512, "steps": 2},
    {"width": 768, "height": 512, "steps": 1},
    {"steps": -1},
)
"""One of each kind of request, good and bad."""

SIZE: Final = {"width": SMALL["width"], "height": SMALL["height"], "steps": SMALL["steps"]}
EACH_API: Final[Mapping[str, tuple[str, dict[str, Any], dict[str, str]]]] = {
    labels.PAGE: ("/generate", SMALL, {CLIENT: labels.PAGE}),
    labels.CLI: ("/generate", SMALL, {CLIENT: labels.CLI}),
    labels.OPENAI: (
        "/v1/images/generations",
        {"prompt": PROMPTS[0], "size": f"{SIZE['width']}x{SIZE['height']}", "steps": SIZE["steps"]},
        {},
    ),
    labels.SDAPI: ("/sdapi/v1/txt2img", {"prompt": PROMPTS[0], **SIZE}, {}),
}
"""A request through each API but the native one: path, body, headers."""

PAUSE_SECONDS: Final = 0.3
"""Between two requests of one client; longer than an answer of a service that refuses."""

FIRST_SECONDS: Final = 120.0
REFUSALS: Final = 3  # After which a webhook has waited for 5, 10 and 20 s.
FEW: Final = 4
DISK_BYTES: Final = 64 * MIB
BUSY_WATTS, IDLE_WATTS = 90, 30
PULSE_SECONDS: Final = 1.0
SLOWER: Final = 2.0
"""Times as long as usual a slowed step takes: far beyond the 1.3 that are reported."""


class SkippedError(Exception):
    """A fault cannot be made here; says why."""


class Traffic:
    """All clients; ``answers`` counts what they were told, 0 for no answer at all."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.answers: Counter[int] = Counter()

    async def image(self, **fields: Any) -> None:
        answer = await self._client.generate(SMALL | fields)
        self.answers[answer.status] += 1

    def clients(self, count: int, **fields: Any) -> AbstractAsyncContextManager[None]:
        """Keep so many clients asking; those who still wait at the end hang up.

        Their seeds, prompts and samplers differ from request to request.
        """

        async def again(number: int) -> None:
            numbers = itertools.count(number)
            kinds = zip(itertools.cycle(PROMPTS), itertools.cycle(SAMPLERS), numbers, strict=False)
            for prompt, sampler, seed in kinds:
                await self.image(**{"prompt": prompt, "sampler": sampler, "seed": seed} | fields)
                await asyncio.sleep(PAUSE_SECONDS)

        return background(*(again(number) for number in range(count)))

    def jobs(self, **fields: Any) -> AbstractAsyncContextManager[None]:
        """Keep handing in jobs, whatever comes of them."""
        body = {**SMALL, "steps": 1, **fields}
        return background(every(PAUSE_SECONDS, lambda: self._client.ask("POST", "/jobs", body)))

    def refused(self, api: str) -> AbstractAsyncContextManager[None]:
        """Keep sending what no service takes, through one of the APIs."""
        path, body, headers = EACH_API[api]
        wrong = {**body, "steps": "many"}

        async def ask() -> None:
            self.answers[(await self._client.ask("POST", path, wrong, headers=headers)).status] += 1

        return background(*(every(PAUSE_SECONDS, ask) for _ in range(FEW)))

    async def few(self) -> None:
        """Ask for some of the smallest images, two at a time, to see how fast this machine is."""
        for _ in range(FEW):
            await asyncio.gather(self.image(), self.image())

    async def tour(self, webhook: str) -> None:
        """Show the service one of each kind of request, and a job whose end is told there."""
        for fields in TOUR:
            await self.image(**fields)
        with suppress(TimeoutError):
            async with asyncio.timeout(PAUSE_SECONDS):  # Who hangs up is counted, too.
                await self.image(steps=50)
        # So many steps that its stream of events is open during a scrape.
        shown = {"image": base64.b64encode(png()).decode(), "strength": 1.0}
        job = await self._client.accept(SMALL | shown | {"steps": 50, "webhook": webhook})
        await self._client.followed(job)
        for path, body, headers in EACH_API.values():
            answer = await self._client.ask("POST", path, body, headers=headers)
            self.answers[answer.status] += 1
        for path in ("/health", "/no-such-path"):
            self.answers[(await self._client.ask("GET", path)).status] += 1

    @property
    def served(self) -> int:
        """Images that came."""
        return self.answers[HTTPStatus.OK]


@dataclass(kw_only=True)
class Scene:
    """The service and everything around it that can fail."""

    service: ServiceProcess
    stack: Stack
    traffic: Traffic
    step_seconds: float  # One denoising step of two small images, on this machine now.
    windows: Windows  # Those of the rules that run.
    driver: Driver | None  # The stand-in for the GPU's driver, or None where no compiler is.
    disk: Path | None  # A small file system of its own with the models' folder, or None.
    begun: float
    clock: float = 0.0
    """When the fault of the moment began; one that needs preparations restarts it after them."""

    def restart_clock(self) -> None:
        self.clock = time.time()

    def fail(self, **faults: Any) -> None:
        """Let the engine commit these faults from now on, and no others.

        The file is replaced, never half written; each replacement counts from zero anew.
        """
        file = Path(self.service.settings["FAULT_FILE"])
        draft = file.with_suffix(".new")
        draft.write_text(json.dumps(faults), encoding="utf-8")
        draft.replace(file)

    async def start(self, **settings: str) -> None:
        """Start the service anew, without faults, and do not wait for it."""
        self.fail()
        await self.service.start(ready=False, **settings)

    @property
    def card(self) -> Driver:
        """The GPU's driver; raises SkippedError where there is no compiler to build it with."""
        if self.driver is None:
            raise SkippedError("no C compiler to build the GPU driver's stand-in with")
        return self.driver


@asynccontextmanager
async def scene_in(
    folder: Path, *, normal: Windows | None = None, seconds: int = 1
) -> AsyncIterator[Scene]:
    """Build it, wait until all of it works, and take it down whatever happens.

    With ``normal`` windows nothing is shortened; else they suit this machine's speed.
    """
    async with AsyncExitStack() as parts:
        enter = parts.enter_async_context
        late = await enter(receiving(_late()))  # It ends after the service that it talks with.
        driver = _driver(folder)
        disk = await enter(_disk(folder / "disk"))
        faults = folder / "faults.json"
        settings = {**LIMITS, "FAULT_FILE": str(faults), **(driver.environment if driver else {})}
        if disk is not None:
            settings["MODEL_CACHE_DIR"] = str(disk)
        faults.write_text("{}", encoding="utf-8")
        service = await enter(service_in(folder, **settings))
        await service.start()
        traffic = Traffic(await enter(client_of(service.url)))
        await traffic.few()
        step = await _step_seconds(service)
        windows = normal or suited(step)
        rules = render(windows, Links())
        stack = await enter(
            running_stack(folder, rules=rules, service=service.address, seconds=seconds)
        )
        scene = Scene(
            service=service,
            stack=stack,
            traffic=traffic,
            step_seconds=step,
            windows=windows,
            driver=driver,
            disk=disk,
            begun=time.time(),
        )
        await enter(traffic.clients(1))
        if driver is not None:
            await enter(background(_pulse(driver, traffic)))
        await _awake(stack)
        await traffic.tour(late)
        yield scene


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
    words = (mount, "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder))
    if await (await asyncio.create_subprocess_exec(*words)).wait() != 0:
        yield None
        return
    try:
        yield folder
    finally:
        await (await asyncio.create_subprocess_exec(unmount, "--lazy", str(folder))).wait()


def _late() -> Accept:
    """Return a receiver that refuses a webhook at first, so that it is seen to wait."""
    refusals = iter([HTTPStatus.SERVICE_UNAVAILABLE] * REFUSALS)

    async def accept(_: web.Request) -> web.Response:
        return web.Response(status=next(refusals, HTTPStatus.NO_CONTENT))

    return accept


async def _step_seconds(service: ServiceProcess) -> float:
    """Return the mean time of a small step so far, from the service's own metrics."""
    total, count = [
        await service.figure(f"sd_step_duration_seconds_{part}", size_class="small") or 0.0
        for part in ("sum", "count")
    ]
    return total / count


async def _pulse(driver: Driver, traffic: Traffic) -> None:
    """Let the GPU's figures move with the work: power, energy, and the use of its memory."""
    joules, served = 1000.0, traffic.served
    while True:
        await asyncio.sleep(PULSE_SECONDS)
        watts = BUSY_WATTS if traffic.served > served else IDLE_WATTS
        served = traffic.served
        joules += watts * PULSE_SECONDS
        driver.set(power=watts * 1000, energy=int(joules * 1000), memory_utilization=watts)


async def _awake(stack: Stack) -> None:
    """Wait for the first scrape and the first notification, which is the dead man's switch."""

    async def scraped() -> bool:
        return await stack.value('up{job="sd-api"}') == 1

    async def told() -> bool:
        return stack.delivered.first("firing", Expected(alert=WATCHDOG), 0.0) is not None

    await until(scraped, FIRST_SECONDS, "the first scrape")
    await until(told, FIRST_SECONDS, f"{WATCHDOG} delivered")
