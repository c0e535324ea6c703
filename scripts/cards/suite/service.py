"""The real service on this machine: its health and its GPU metrics before, while and after work."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from prometheus_client.parser import text_string_to_metric_families

from scripts.cards.suite.parts import Report, Task, Tell
from service.telemetry.definitions import GPU
from tests.support.load_client import Client, client_of
from tests.support.service_process import ServiceProcess
from tests.support.wait import free_port

FIELDS: Final = ("status", "gpu_available", "gpu_memory_used", "gpu_memory_total", "model_loaded")
BODY: Final = {
    "gpu": {"prompt": "a boat", "seed": 1, "width": 768, "height": 768, "steps": 50},
    "cpu": {"prompt": "a boat", "seed": 1, "width": 256, "height": 256, "steps": 4},
}
BUSY_SECONDS: Final = {"gpu": 8.0, "cpu": 0.0}
"""Drawing lasts at least so long: the service reads the GPU every 5 s."""

POLL_SECONDS: Final = 0.25
FEW: Final = 4
"""Series of a metric that are shown one by one; of more, only their number and sum."""

HEAD: Final = ("figure", "before", "while drawing", "after")
Figures = Mapping[str, str]


class Service(ServiceProcess):
    """A service that stays in the group of this process, and is killed with it."""

    session = False


def run(task: Task, tell: Tell) -> None:
    """Start the service, draw, read what it says, and end it."""
    with TemporaryDirectory(prefix="card-data-") as data:
        asyncio.run(_run(task, tell, Path(data)))


async def _run(task: Task, tell: Tell, data: Path) -> None:
    report = Report()
    settings = task.settings(LOG_LEVEL="INFO", API_PORT=str(free_port()))
    service = Service(**settings, folder=data, start=False)
    try:
        started = time.monotonic()
        await service.start()
        report.notes.append(f"Ready after {time.monotonic() - started:.1f} s.")
        async with client_of(service.url) as client:
            await _drawn(task, report, client)
        tell(report)
        started = time.monotonic()
        code = await asyncio.to_thread(service.end)
        seconds = time.monotonic() - started
        report.notes.append(f"After SIGTERM it ended with exit code {code} in {seconds:.1f} s.")
        report.fail(f"exit code {code}" if code else "")
        tell(report)
    finally:
        await service.stop()
        print("".join(service.output))


async def _drawn(task: Task, report: Report, client: Client) -> None:
    """Draw, and read the figures before, again and again meanwhile, and after."""
    before = now = await read(client)
    until = time.monotonic() + BUSY_SECONDS[task.kind]

    async def draw() -> int:
        count = 0
        while not count or time.monotonic() < until:
            (await client.generate(BODY[task.kind])).require(HTTPStatus.OK)
            count += 1
        return count

    drawing = asyncio.create_task(draw())
    while not drawing.done():
        now = await read(client)
        await asyncio.wait([drawing], timeout=POLL_SECONDS)
    after = await read(client)
    report.table = table(before, now, after)
    report.figures = {"before": before, "drawing": now, "after": after}
    report.notes.append(f"Images drawn: {await drawing}.")
    report.notes += absent(after)
    report.fail("" if task.on_cpu else blind(now))


async def read(client: Client) -> dict[str, str]:
    """Return the figures now."""
    health = (await client.ask("GET", "/health")).require(HTTPStatus.OK)
    metrics = (await client.ask("GET", "/metrics")).require(HTTPStatus.OK)
    return figures(health.body, metrics.content.decode())


def figures(health: Mapping[str, Any], metrics: str) -> dict[str, str]:
    """Return the fields of the health answer and the series of the GPU, by name."""
    found = {f"health: {name}": str(health[name]) for name in FIELDS}
    for family in text_string_to_metric_families(metrics):
        if not family.name.startswith(("sd_gpu_", "sd_engine_gpu_")):
            continue
        if len(family.samples) > FEW:
            total = sum(sample.value for sample in family.samples)
            found[family.samples[0].name] = f"{len(family.samples)} series, sum {total:g}"
            continue
        for sample in family.samples:
            labels = ", ".join(
                value for name, value in sample.labels.items() if name not in {"gpu", "engine"}
            )
            found[f"{sample.name} ({labels})" if labels else sample.name] = f"{sample.value:g}"
    return found


def table(*seen: Figures) -> list[Sequence[str]]:
    """Return the figures at three times, one a row."""
    names = dict.fromkeys(name for each in seen for name in each)
    return [HEAD, *((name, *(each.get(name, "-") for each in seen)) for name in names)]


def absent(seen: Figures) -> list[str]:
    """Return a note of the metrics of a GPU that this one does not give."""
    there = {name.partition(" ")[0] for name in seen}
    missing = [row.name for row in GPU if row.name not in there]
    return [f"Metrics that are not there: {', '.join(missing)}."] if missing else []


def blind(seen: Figures) -> str:
    """Return what a service on a GPU must show and does not; empty if it does."""
    wrong = [
        *(["gpu_available is not true"] if seen["health: gpu_available"] != "True" else []),
        *(f"{name} is 0.0 GB" for name in FIELDS[2:4] if seen[f"health: {name}"] == "0.0 GB"),
        *(["no sd_gpu_memory_used_bytes"] if "sd_gpu_memory_used_bytes" not in seen else []),
    ]
    return "; ".join(wrong)
