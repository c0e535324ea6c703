"""Clients that do not wait: they hang up, cancel, run out of time, and stop in mid-sentence."""

import asyncio
import json
import random
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any, Final

from yarl import URL

from service.core.sampler import Sampler
from tests.drills.common.ledger import Order
from tests.drills.stress.polite import Act
from tests.support.load_client import Client, demand
from tests.support.wire import SMALL_WINDOW, Target

RESET: Final = struct.pack("ii", 1, 0)
"""SO_LINGER that ends a connection with RST, as a machine does that has lost its client."""

SOON_SECONDS: Final = 0.4
STREAMS: Final = 3
LONG: Final = 6
"""How many times the steps of an order take that is to be broken off in the midst of them."""

NO_CHUNKS: Final = b"10\r\n{\r\nzz\r\n"
CHUNKED: Final = {"Content-Length": "", "Transfer-Encoding": "chunked"}
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def long(order: Order) -> Order:
    """Return the same order with so many steps that there is time to break it off."""
    most = Sampler(order.body["sampler"]).most_steps or 50
    return order.but(steps=min(order.body["steps"] * LONG, most))


def short(order: Order) -> Order:
    """Return the same order with one step, so that decoding takes most of the time."""
    return order.but(steps=1)


class Rudeness:
    """All that clients do who are not there any more."""

    def __init__(self, url: str, seed: int) -> None:
        self._target = Target(port=URL(url).port or 80)
        self._chance = random.Random(seed)
        self._left_open: list[Streams] = []
        self.ordering: Mapping[str, Act] = {
            "hangs up in denoise": self.hangs_up(long, self._soon),
            "hangs up in decode": self.hangs_up(short, self._soon),
            "hangs up in the body": self.hangs_up(Order.but, _answered),
            "hangs up before 202": self.accepted_and_gone,
            "DELETE while it waits": deletes_waiting,
            "DELETE in denoise": deletes(long, lambda _: True),
            "DELETE in decode": deletes(Order.but, lambda data: data["step"] >= data["steps"]),
            "deadline of a request": self.late,
            "deadline of a job": self.late_job,
            "drops event streams": self.drops_streams,
        }
        """Those who start work that nobody waits for."""
        self.idle: Mapping[str, Act] = {
            "half a body": lambda _, order: self._leave(self._half(order)),
            "half a head": lambda *_: self._leave(b"POST /generate HTTP/1.1\r\nHost: localh"),
            "broken chunks": lambda *_: self._leave(
                self._target.request("POST", "/jobs", NO_CHUNKS, headers=CHUNKED)
            ),
        }
        """Those who do not even get to the end of a request: they hang up, or say nothing more."""

    async def round_over(self) -> None:
        """Drop what was left open."""
        lines, self._left_open = self._left_open, []
        for line in lines:
            await self._drop(line)

    def hangs_up(
        self, kind: Callable[[Order], Order], wait: Callable[[Streams], Awaitable[None]]
    ) -> Act:
        """Return a client that asks for such an image and hangs up after something."""

        async def act(_: Client, order: Order) -> None:
            line = await self._post("/generate", kind(order))
            await wait(line)
            await self._drop(line)

        return act

    async def accepted_and_gone(self, _: Client, order: Order) -> None:
        writer = (await self._post("/jobs", order))[1]
        writer.close()
        await writer.wait_closed()

    async def late(self, client: Client, order: Order) -> None:
        headers = {"X-Request-Timeout": f"{self._moment():.3f}"}
        answer = await client.generate(long(order).body, headers=headers)
        known = {HTTPStatus.OK, HTTPStatus.REQUEST_TIMEOUT}
        demand(answer.status in known, f"{answer.status} for a request that was late")

    async def late_job(self, client: Client, order: Order) -> None:
        job = await client.accept(long(order).but(timeout_seconds=self._moment()).body)
        last = await client.followed(job)
        demand(last in {"failed", "finished"}, f"the last event of a late job is {last!r}")

    async def drops_streams(self, client: Client, order: Order) -> None:
        """Open some event streams of a job; drop all but one, which nobody reads."""
        path = f"/jobs/{await client.accept(order.body)}/events"
        lines = [await self._send(self._target.request("GET", path)) for _ in range(STREAMS)]
        for line in lines:
            await _answered(line)
        for line in lines[1:]:
            await line[0].readuntil(b"\n\n")
            await self._drop(line)
        self._left_open.append(lines[0])

    def _half(self, order: Order) -> bytes:
        """Return a request that promises a body and has half of it."""
        body = json.dumps(order.body).encode()
        half = body[: len(body) // 2]
        return self._target.request("POST", "/generate", half, length=len(body))

    async def _send(self, request: bytes) -> Streams:
        made = await self._target.connect(SMALL_WINDOW)
        reader, writer = await asyncio.open_connection(sock=made, limit=SMALL_WINDOW)
        writer.write(request)
        await writer.drain()
        return reader, writer

    async def _post(self, path: str, order: Order) -> Streams:
        return await self._send(self._target.request("POST", path, json.dumps(order.body).encode()))

    async def _leave(self, request: bytes) -> None:
        line = await self._send(request)
        if self._coin():
            await self._drop(line)
        else:
            self._left_open.append(line)

    async def _drop(self, line: Streams) -> None:
        """Leave, with a farewell (FIN) or without (RST)."""
        _, writer = line
        if self._coin():
            made = writer.get_extra_info("socket")
            made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            writer.transport.abort()
        else:
            writer.close()
        try:
            await writer.wait_closed()
        except ConnectionError:  # The service was first.
            return

    async def _soon(self, _: Streams) -> None:
        await asyncio.sleep(self._moment())

    def _moment(self) -> float:
        return self._chance.uniform(0.01, SOON_SECONDS)

    def _coin(self) -> bool:
        return self._chance.random() < 0.5


async def _answered(line: Streams) -> None:
    """Read the head of an answer and no more."""
    reader, _ = line
    demand(b" 200 " in await reader.readline(), "no 200 for images or events")
    await reader.readuntil(b"\r\n\r\n")


def deletes(kind: Callable[[Order], Order], when: Callable[[Any], bool]) -> Act:
    """Return a client that deletes such a job at the steps of which ``when`` is true."""

    async def act(client: Client, order: Order) -> None:
        job = await client.accept(kind(order).body)

        async def heard(name: str, data: Any) -> None:
            if name == "step" and when(data):
                await _deleted(client, job)

        last = await client.followed(job, heard)
        demand(last in {"finished", "cancelled"}, f"the last event of a cancelled job is {last!r}")

    return act


async def deletes_waiting(client: Client, order: Order) -> None:
    await _deleted(client, await client.accept(order.body))


async def _deleted(client: Client, job: str) -> None:
    answer = await client.ask("DELETE", f"/jobs/{job}")
    state = answer.body.get("state")
    demand(state in {"cancelled", "succeeded"}, f"{answer.status}, {state} after DELETE")
