"""Measure streams of the OpenAI API: the first partial image, and clients that do not read.

``python -m scripts.benchmark.streams http://127.0.0.1:8000`` asks a running service, one request
at a time: whole answers, then streams, then streams while ``--idle`` other clients hold finished
streams that they never read.
"""

import argparse
import asyncio
import json
import os
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from statistics import median
from typing import Any, Final

import aiohttp
from yarl import URL

from scripts.written import table

PATH: Final = "/v1/images/generations"
PROMPT: Final = "A cozy cabin in the woods"
PARTIAL: Final = "image_generation.partial_image"
COMPLETED: Final = "image_generation.completed"
SECONDS: Final = 600.0
SMALLEST_BUFFER: Final = 4096
"""Bytes that the system of a client that does not read takes from its stream."""

Times = dict[str, float]


async def whole(session: aiohttp.ClientSession, body: dict[str, Any]) -> Times:
    """Return the seconds until an answer without a stream is here."""
    began = time.monotonic()
    async with session.post(PATH, json=body) as answer:
        answer.raise_for_status()
        await answer.read()
    return {"the whole answer": time.monotonic() - began}


async def streamed(session: aiohttp.ClientSession, body: dict[str, Any]) -> Times:
    """Return the seconds until each event of a stream is here."""
    began, found = time.monotonic(), Times()
    sent = {**body, "stream": True, "partial_images": 3}
    async with session.post(PATH, json=sent) as answer:
        answer.raise_for_status()
        async for line in answer.content:
            if not line.startswith(b"data: "):
                continue
            event = json.loads(line.removeprefix(b"data: "))
            if event.get("type") == PARTIAL:
                found[f"partial image {event['partial_image_index'] + 1}"] = (
                    time.monotonic() - began
                )
            elif event.get("type") == COMPLETED:
                found["the finished image"] = time.monotonic() - began
            else:
                raise SystemExit(f"The stream failed: {event}")
    return found


@asynccontextmanager
async def idle(url: URL, key: str, body: dict[str, Any], count: int) -> AsyncIterator[None]:
    """Hold streams that are begun, one after another, and never read."""
    loop = asyncio.get_running_loop()
    lines: list[socket.socket] = []
    payload = json.dumps({**body, "stream": True, "partial_images": 3}).encode()
    head = (
        f"POST {PATH} HTTP/1.1\r\nHost: {url.authority}\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {key}\r\nContent-Length: {len(payload)}\r\n\r\n"
    )
    try:
        for _ in range(count):
            line = socket.socket()
            lines.append(line)
            line.setblocking(False)
            line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALLEST_BUFFER)
            await loop.sock_connect(line, (url.host, url.port))
            await loop.sock_sendall(line, head.encode() + payload)
        yield
    finally:
        for line in lines:
            line.close()


def report(title: str, runs: list[Times]) -> str:
    """Return the medians of several runs as a table."""
    names = dict.fromkeys(name for run in runs for name in run)
    rows = [
        (name, str(len(here)), f"{median(here):.2f}", f"{min(here):.2f}-{max(here):.2f}")
        for name in names
        if (here := [run[name] for run in runs if name in run])
    ]
    return f"{title}\n\n{table(('Seconds until', 'Number', 'Median', 'Range'), rows)}\n"


async def main(options: argparse.Namespace) -> None:
    """Print the three tables."""
    url, key = URL(options.url), os.environ.get("API_KEY", "none")
    body = {"prompt": PROMPT, "size": options.size, "steps": options.steps, "seed": 1}
    headers, timeout = {"Authorization": f"Bearer {key}"}, aiohttp.ClientTimeout(total=SECONDS)
    async with aiohttp.ClientSession(url, headers=headers, timeout=timeout) as session:
        await streamed(session, body)  # Nothing is measured while anything is done the first time.
        print(report("Whole answers", [await whole(session, body) for _ in range(options.runs)]))
        print(report("Streams", [await streamed(session, body) for _ in range(options.runs)]))
        async with idle(url, key, body, options.idle):
            await drained(session)
            runs = [await streamed(session, body) for _ in range(options.runs)]
        print(report(f"Streams next to {options.idle} that nobody reads", runs))


async def drained(session: aiohttp.ClientSession) -> None:
    """Wait until no job waits or runs."""
    while True:
        await asyncio.sleep(0.5)
        async with session.get("/health") as answer:
            health = await answer.json()
        if not health["queue"]["depth"] and not health["running"]:
            return


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("url", help="address of the service; API_KEY in the environment is its key")
    parser.add_argument("--size", default="512x512")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--idle", type=int, default=20, help="clients that do not read")
    asyncio.run(main(parser.parse_args()))
