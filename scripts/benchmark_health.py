"""Measure /health while pictures are being made: latency percentiles, busy against idle.

Starts nothing: point it at a running service on this machine.

    python scripts/benchmark_health.py --url http://127.0.0.1:8000 --pictures 8
"""

import argparse
import asyncio
import sys
import time
from statistics import quantiles
from typing import Any
from urllib.parse import urlsplit

import aiohttp

IDLE_SECONDS = 3.0
PROBE_INTERVAL_SECONDS = 0.005
LIMIT_SECONDS = 300.0


async def probe(session: aiohttp.ClientSession, until: "asyncio.Future[Any]") -> list[float]:
    """Ask for /health again and again until ``until`` is done; return seconds per answer."""
    taken = []
    while not until.done():
        started = time.perf_counter()
        async with session.get("/health") as answer:
            await answer.read()
            answer.raise_for_status()
        taken.append(time.perf_counter() - started)
        await asyncio.sleep(PROBE_INTERVAL_SECONDS)
    return taken


async def draw(session: aiohttp.ClientSession, seed: int, size: int) -> None:
    """Ask for one picture."""
    body = {"prompt": "A cute robot in a garden", "seed": seed, "width": size, "height": size}
    async with session.post("/generate", json=body) as answer:
        await answer.read()
        answer.raise_for_status()


def row(name: str, taken: list[float]) -> str:
    """Return one line of the table, in milliseconds."""
    cuts = quantiles(taken, n=1000, method="inclusive")
    p50, p95, p99 = (cuts[i - 1] * 1000 for i in (500, 950, 990))
    return (
        f"| {name} | {len(taken)} | {p50:.1f} | {p95:.1f} | {p99:.1f} | {max(taken) * 1000:.1f} |"
    )


async def measure(url: str, pictures: int, size: int) -> None:
    """Print the table for an idle and for a busy service."""
    timeout = aiohttp.ClientTimeout(total=LIMIT_SECONDS)
    async with aiohttp.ClientSession(url, timeout=timeout) as session:
        idle = await probe(session, asyncio.ensure_future(asyncio.sleep(IDLE_SECONDS)))
        started = time.perf_counter()
        work = asyncio.gather(*(draw(session, seed, size) for seed in range(pictures)))
        busy = await probe(session, work)
        await work
        seconds = time.perf_counter() - started
    print("| /health | answers | p50 ms | p95 ms | p99 ms | max ms |\n|---|---|---|---|---|---|")
    print(row("idle", idle))
    print(row(f"{pictures} pictures of {size}x{size}", busy))
    print(f"\n{pictures} pictures in {seconds:.1f} s, {seconds / pictures:.2f} s each.")


def main() -> None:
    """Read the arguments and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--pictures", type=int, default=8)
    parser.add_argument("--size", type=int, default=512)
    arguments = parser.parse_args()
    if urlsplit(arguments.url).hostname not in {"127.0.0.1", "localhost", "::1"}:
        sys.exit("The benchmark sends load to this machine only: use a loopback address.")
    asyncio.run(measure(arguments.url, arguments.pictures, arguments.size))


if __name__ == "__main__":
    main()
