"""Measure a mixed crowd: one client of each mode at one service, and at a plain server each.

    python -m scripts.modes.crowd --seconds 60 --rounds 2

The service and the four plain servers (diffusers, one process and one model a mode) take turns on
the same cores, in one run, with the same requests. It prints a table; exit code 1: a request got
no image.
"""

import argparse
import asyncio
import contextlib
import statistics
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path

import aiohttp

from scripts.benchmark.machine import cores
from scripts.benchmark.servers import EVERYWHERE, OFF, Server
from scripts.modes.requests import MODES, body
from tests.support.load_client import Client
from tests.support.programs import carried_out, started
from tests.support.service_process import READY_SECONDS, service_in
from tests.support.wait import free_port, until

HEADERS = {"Accept": "image/png"}
PATIENCE = 600.0


@dataclass(kw_only=True)
class Turns:
    """What one mode got from one side."""

    seconds: list[float] = field(default_factory=list)
    """Of each request."""
    spent: float = 0.0
    """From the first request of each turn to the end of its last."""
    faults: list[str] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Images a minute."""
        return 60 * len(self.seconds) / self.spent if self.spent else 0.0

    @property
    def usual(self) -> float:
        """Median seconds of a request."""
        return statistics.median(self.seconds) if self.seconds else 0.0


Side = Mapping[str, Turns]


async def turn(clients: Mapping[str, Client], side: Side, given: argparse.Namespace) -> None:
    """Let a client of each mode ask, one image after the other, for some seconds."""
    started_at = time.monotonic()

    async def one(mode: str, client: Client) -> None:
        number = 0
        while time.monotonic() - started_at < given.seconds:
            number += 1
            sent = time.monotonic()
            asked = body(mode, number, given.side, given.steps)
            answer = await client.generate(asked, seconds=PATIENCE, headers=HEADERS)
            if answer.status != HTTPStatus.OK:
                side[mode].faults.append(f"{answer.status} {answer.code}")
                break
            side[mode].seconds.append(time.monotonic() - sent)
        side[mode].spent += time.monotonic() - started_at

    async with asyncio.TaskGroup() as group:
        for mode, client in clients.items():
            group.create_task(one(mode, client))


@asynccontextmanager
async def plain(
    mode: str, folder: Path, session: aiohttp.ClientSession, threads: int
) -> AsyncIterator[Server]:
    """Start the plain server of a mode, and hand it out when it is ready."""
    port = free_port()
    client = Client(f"http://127.0.0.1:{port}", session)
    command = [sys.executable, "-m", "scripts.modes.plain_server", mode, str(port)]
    settings = {**EVERYWHERE, "MODEL_ID": "demo", "TORCH_THREADS": str(threads)}
    async with started(command, folder / f"{mode}.log", settings) as child:

        async def up() -> bool:
            return (await client.ask("GET", "/health")).status == HTTPStatus.OK

        await until(up, READY_SECONDS, f"the plain server of {mode}")
        server = Server(name=mode, client=client, child=child)
        server.pause()
        try:
            yield server
        finally:
            server.resume()


async def measure(given: argparse.Namespace, folder: Path) -> tuple[Side, Side]:
    """Return what each mode got from the service, and from its plain server."""
    settings = {**EVERYWHERE, **dict.fromkeys(OFF, ""), "MODEL_ID": "demo"}
    settings |= {"TORCH_THREADS": str(given.threads or cores()), "MAX_CONCURRENT_REQUESTS": "4"}
    ours, theirs = ({mode: Turns() for mode in MODES} for _ in range(2))
    async with contextlib.AsyncExitStack() as stack:
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        session = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
        service = await stack.enter_async_context(service_in(folder / "service", **settings))
        await service.start()
        servers = [
            await stack.enter_async_context(plain(mode, folder, session, given.plain_threads))
            for mode in MODES
        ]
        client = Client(service.url, session)
        for _ in range(given.rounds):
            await turn(dict.fromkeys(MODES, client), ours, given)
            for server in servers:
                server.resume()
            await turn({server.name: server.client for server in servers}, theirs, given)
            for server in servers:
                server.pause()
    return ours, theirs


def table(ours: Side, theirs: Side) -> list[str]:
    """Return the lines of the table."""
    lines = [
        "| Client | Images a minute: service | plain server | ratio | Seconds: service | plain |",
        "|---|---|---|---|---|---|",
    ]
    ratios = []
    for mode in MODES:
        our, their = ours[mode], theirs[mode]
        ratios.append(our.rate / their.rate if their.rate else 0.0)
        lines.append(
            f"| {mode} | {our.rate:.2f} | {their.rate:.2f} | {ratios[-1]:.2f} | {our.usual:.1f} | "
            f"{their.usual:.1f} |"
        )
    lines.append(f"| mean | | | {statistics.mean(ratios):.2f} | | |")
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--side", type=int, default=256, help="pixels (%(default)s)")
    parser.add_argument("--steps", type=int, default=20, help="(%(default)s)")
    parser.add_argument("--seconds", type=float, default=60, help="of a turn (%(default)s)")
    parser.add_argument("--rounds", type=int, default=2, help="turns of each (%(default)s)")
    parser.add_argument("--threads", type=int, default=0, help="of the service (all cores)")
    parser.add_argument(
        "--plain-threads", type=int, default=1, help="of each plain server (%(default)s)"
    )
    given = parser.parse_args(arguments)
    ours, theirs = carried_out("crowd", None, lambda folder: measure(given, folder))
    print("\n".join(table(ours, theirs)))
    faults = [
        f"{mode}: {each}"
        for side in (ours, theirs)
        for mode, of in side.items()
        for each in of.faults
    ]
    if faults:
        print("\n".join(faults), file=sys.stderr)
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
