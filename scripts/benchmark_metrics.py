"""What the metrics cost: size and time of a scrape, and throughput with them and without.

Run from the repository's root: python -m scripts.benchmark_metrics. Everything happens in one
process, over an engine without a model, so that the service itself is what is measured: with a
real model the engine's process takes nearly all the time, and the cost vanishes in it. The two
services take turns, round by round, and the figure is the median of the rounds' ratios.
"""

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import structlog
from aiohttp import ClientSession
from aiohttp.test_utils import BaseTestServer, TestServer
from prometheus_client import Counter, Gauge, Histogram

from service.app import create_app
from service.config import Config
from service.engine.fake import FakeEngine

AT_ONCE = 16
BODY = {"prompt": "a lighthouse at dusk", "width": 256, "height": 256, "steps": 4}
WRITES = ((Counter, "inc"), (Gauge, "set"), (Gauge, "inc"), (Gauge, "dec"), (Histogram, "observe"))


@contextmanager
def nothing_measured() -> Iterator[None]:
    """Let every write to a metric return at once."""
    kept = [(kind, name, getattr(kind, name)) for kind, name in WRITES]
    for kind, name, _ in kept:
        setattr(kind, name, lambda *_args, **_named: None)
    try:
        yield
    finally:
        for kind, name, write in kept:
            setattr(kind, name, write)


async def answered(session: ClientSession, server: BaseTestServer, count: int) -> float:
    """Make ``count`` pictures, some at once, and return the seconds."""
    left = iter(range(count))
    started = time.perf_counter()

    async def client() -> None:
        for _ in left:
            async with session.post(server.make_url("/generate"), json=BODY) as answer:
                answer.raise_for_status()
                await answer.read()

    await asyncio.gather(*(client() for _ in range(AT_ONCE)))
    return time.perf_counter() - started


async def scraped(session: ClientSession, server: BaseTestServer, accept: str) -> dict[str, Any]:
    """Scrape twenty times as Prometheus does, gzip included; return the median and the size."""
    times = []
    headers = {"Accept": accept, "Accept-Encoding": "gzip"}
    for _ in range(20):
        started = time.perf_counter()
        async with session.get(server.make_url("/metrics"), headers=headers) as answer:
            text = await answer.text()
            packed = int(answer.headers.get("Content-Length", 0))
        times.append(time.perf_counter() - started)
    series = sum(1 for line in text.splitlines() if line and not line.startswith("#"))
    return {
        "milliseconds": round(1000 * statistics.median(times), 2),
        "series": series,
        "bytes": len(text),
        "bytes_packed": packed,
    }


async def measure(rounds: int, per_round: int) -> dict[str, Any]:
    """Measure the throughput in turns, then the scrape."""
    config = Config(device="cpu", data_dir="", max_concurrent_requests=AT_ONCE, log_level="ERROR")
    app = create_app(config, FakeEngine())
    ratios, rates = [], []
    async with TestServer(app) as server, ClientSession() as session:
        await answered(session, server, per_round)  # Warm.
        for _ in range(rounds):
            measured = await answered(session, server, per_round)
            with nothing_measured():
                bare = await answered(session, server, per_round)
            ratios.append(bare / measured)
            rates.append(per_round / measured)
        await answered(session, server, max(0, 10_000 - (rounds + 1) * per_round))
        plain = await scraped(session, server, "text/plain")
        openmetrics = await scraped(session, server, "application/openmetrics-text")
    return {
        "throughput_ratio": round(statistics.median(ratios), 4),
        "ratios": [round(ratio, 4) for ratio in ratios],
        "requests_per_second": round(statistics.median(rates), 1),
        "scrape_text": plain,
        "scrape_openmetrics": openmetrics,
    }


def main() -> None:
    """Read the command line, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--per-round", type=int, default=400)
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    print(json.dumps(asyncio.run(measure(options.rounds, options.per_round)), indent=2))


if __name__ == "__main__":
    main()
