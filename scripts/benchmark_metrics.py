"""What the metrics cost: size and time of a scrape, and throughput with them and without.

Run from the repository's root: python -m scripts.benchmark_metrics. Everything happens in one
process, over an engine without a model, so that the service itself is what is measured: with a
real model the engine's process takes nearly all the time, and the cost vanishes in it. The two
services take turns, round by round, and the figure is the median of the rounds' ratios.
"""

import asyncio
import time
from contextlib import ExitStack
from statistics import median
from typing import Final
from unittest import mock

import structlog
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client import Counter, Gauge, Histogram

from service.app import create_app
from service.config.table import Config
from tests.support.simulation.fake_engine import FakeEngine

ROUNDS: Final = 9
PER_ROUND: Final = 400
IN_ALL: Final = 10_000
"""Images before the scrape."""

AT_ONCE: Final = 16
BODY: Final = {"prompt": "a lighthouse at dusk", "width": 256, "height": 256, "steps": 4}
WRITES: Final = (
    *((Counter, "inc"), (Gauge, "set"), (Gauge, "inc"), (Gauge, "dec"), (Histogram, "observe")),
)
Client = TestClient[web.Request, web.Application]


def nothing(*_args: object, **_named: object) -> None:
    """Do nothing: a mock object would take longer than what it stands for."""


async def answered(client: Client, count: int) -> float:
    """Make ``count`` images, some at once, and return the seconds."""
    left = iter(range(count))
    started = time.perf_counter()

    async def ask() -> None:
        for _ in left:
            async with client.post("/generate", json=BODY) as answer:
                answer.raise_for_status()
                await answer.read()

    await asyncio.gather(*(ask() for _ in range(AT_ONCE)))
    return time.perf_counter() - started


async def scraped(client: Client, accept: str) -> str:
    """Scrape twenty times as Prometheus does, gzip included; return the median and the size."""
    times = []
    for _ in range(20):
        started = time.perf_counter()
        headers = {"Accept": accept, "Accept-Encoding": "gzip"}
        async with client.get("/metrics", headers=headers) as answer:
            text = await answer.text()
        times.append(time.perf_counter() - started)
    series = sum(1 for line in text.splitlines() if line and not line.startswith("#"))
    return (
        f"{accept}: {1000 * median(times):.2f} ms, {series} series, {len(text)} bytes, "
        f"{answer.headers.get('Content-Length', '?')} as sent"
    )


async def measure() -> None:
    """Measure the throughput in turns, then the scrape."""
    config = Config(device="cpu", data_dir="", max_concurrent_requests=AT_ONCE, log_level="ERROR")
    ratios, rates = [], []
    async with TestClient(TestServer(create_app(config, FakeEngine()))) as client:
        await answered(client, PER_ROUND)  # Warm.
        for _ in range(ROUNDS):
            measured = await answered(client, PER_ROUND)
            with ExitStack() as stack:  # Every write to a metric returns at once.
                for kind, name in WRITES:
                    stack.enter_context(mock.patch.object(kind, name, nothing))
                ratios.append(await answered(client, PER_ROUND) / measured)
            rates.append(PER_ROUND / measured)
        print(f"{median(rates):.1f} requests a second. Time without metrics by time with them:")
        print(f"{median(ratios):.4f}, of rounds from {min(ratios):.4f} to {max(ratios):.4f}")
        await answered(client, max(0, IN_ALL - (ROUNDS + 1) * PER_ROUND))
        for accept in ("text/plain", "application/openmetrics-text"):
            print(await scraped(client, accept))


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    asyncio.run(measure())
