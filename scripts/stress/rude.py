"""Clients that do not wait: they hang up, cancel, run out of time, and stop in mid-sentence."""

import asyncio
import json
import random
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any, Final

import aiohttp
from yarl import URL

from scripts.stress.orders import Order
from scripts.stress.polite import FINAL, accept, demand, events

RESET: Final = struct.pack("ii", 1, 0)
"""SO_LINGER that ends a connection with RST, as a machine does that has lost its client."""

SMALL_WINDOW: Final = 4096
"""Receive buffer in bytes: the service then still has most of an answer to send."""

SOON_SECONDS: Final = 0.4
STREAMS: Final = 3


class Line:
    """A connection that HTTP libraries would not leave like that."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self._writer = writer

    async def send(self, data: bytes) -> None:
        """Send some bytes."""
        self._writer.write(data)
        await self._writer.drain()

    async def drop(self, *, reset: bool) -> None:
        """Leave, with a farewell (FIN) or without (RST)."""
        if reset:
            door = self._writer.get_extra_info("socket")
            door.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            self._writer.transport.abort()
        else:
            self._writer.close()
        try:
            await self._writer.wait_closed()
        except ConnectionError:  # The service was first.
            return


class Rudeness:
    """All that clients do who are not there any more; ``left_open`` ends with the round."""

    def __init__(self, url: str, seed: int) -> None:
        self._url = URL(url)
        self._chance = random.Random(seed)  # noqa: S311 - a sequence to repeat, not a secret
        self.left_open: list[Line] = []

    async def round_over(self) -> None:
        """Drop what was left open."""
        lines, self.left_open = self.left_open, []
        for line in lines:
            await line.drop(reset=self._coin())

    async def in_denoise(self, session: aiohttp.ClientSession, order: Order) -> None:
        """Hang up in the midst of the steps, or while it waits for its turn."""
        del session
        await self._hang_up(order.long())

    async def in_decode(self, session: aiohttp.ClientSession, order: Order) -> None:
        """Hang up about when the latents are decoded."""
        del session
        await self._hang_up(order.quick())

    async def in_body(self, session: aiohttp.ClientSession, order: Order) -> None:
        """Hang up while the answer is sent."""
        del session
        line = await self._post("/generate", order.body)
        demand(b" 200 " in await line.reader.readline(), "no 200 for pictures")
        await line.reader.readuntil(b"\r\n\r\n")
        await line.drop(reset=self._coin())

    async def accepted_and_gone(self, session: aiohttp.ClientSession, order: Order) -> None:
        """Hand in a job and do not wait to hear that it was accepted."""
        del session
        line = await self._post("/jobs", order.body)
        await line.drop(reset=False)

    async def deletes_running(self, session: aiohttp.ClientSession, order: Order) -> None:
        """Cancel a job at its first step."""
        await self._delete(session, order.long(), lambda _: True)

    async def deletes_in_decode(self, session: aiohttp.ClientSession, order: Order) -> None:
        """Cancel a job after its last step, while its latents are decoded."""
        await self._delete(session, order, lambda data: data["step"] >= data["steps"])

    async def deletes_waiting(self, session: aiohttp.ClientSession, order: Order) -> None:
        """Cancel a job as soon as it is accepted."""
        job = await accept(session, order.body)
        await _deleted(session, job)

    async def late(self, session: aiohttp.ClientSession, order: Order) -> None:
        """Let the time of a request run out."""
        headers = {"X-Request-Timeout": f"{self._soon():.3f}"}
        async with session.post("/generate", json=order.long().body, headers=headers) as answer:
            await answer.read()
            known = {HTTPStatus.OK, HTTPStatus.REQUEST_TIMEOUT}
            demand(answer.status in known, f"{answer.status} for a request that was late")

    async def late_job(self, session: aiohttp.ClientSession, order: Order) -> None:
        """Let the time of a durable job run out, and watch."""
        job = await accept(session, {**order.long().body, "timeout_seconds": self._soon()})
        last = ""
        async with events(session, job) as stream:
            async for name, _ in stream:
                last = name
        demand(last in {"failed", "finished"}, f"the last event of a late job is {last!r}")

    async def drops_streams(self, session: aiohttp.ClientSession, order: Order) -> None:
        """Open some event streams of a job; drop all but one, which nobody reads."""
        job = await accept(session, order.body)
        lines = [await self._get(f"/jobs/{job}/events") for _ in range(STREAMS)]
        for line in lines[1:]:
            await line.reader.readuntil(b"\n\n")
            await line.drop(reset=self._coin())
        self.left_open.append(lines[0])

    async def half_body(self, session: aiohttp.ClientSession, order: Order) -> None:
        """Promise a body and send half of it; then hang up, or say nothing more."""
        del session
        body = json.dumps(order.body).encode()
        line = await self._open()
        await line.send(self._head("POST", "/generate", len(body)) + body[: len(body) // 2])
        await self._leave(line)

    async def half_head(self, session: aiohttp.ClientSession, order: Order) -> None:
        """Stop in the midst of the headers."""
        del session, order
        line = await self._open()
        await line.send(b"POST /generate HTTP/1.1\r\nHost: localh")
        await self._leave(line)

    async def broken_chunks(self, session: aiohttp.ClientSession, order: Order) -> None:
        """Send a body whose chunks are none."""
        del session, order
        line = await self._open()
        head = self._head("POST", "/jobs", None).replace(b"\r\n\r\n", b"\r\n")
        await line.send(head + b"Transfer-Encoding: chunked\r\n\r\n10\r\n{\r\nzz\r\n")
        await self._leave(line)

    @property
    def ordering(self) -> "Mapping[str, Rude]":
        """Those who start work that nobody waits for."""
        return {
            "hangs up in denoise": self.in_denoise,
            "hangs up in decode": self.in_decode,
            "hangs up in the body": self.in_body,
            "hangs up before 202": self.accepted_and_gone,
            "DELETE while it waits": self.deletes_waiting,
            "DELETE in denoise": self.deletes_running,
            "DELETE in decode": self.deletes_in_decode,
            "deadline of a request": self.late,
            "deadline of a job": self.late_job,
            "drops event streams": self.drops_streams,
        }

    @property
    def idle(self) -> "Mapping[str, Rude]":
        """Those who do not even get to the end of a request."""
        return {
            "half a body": self.half_body,
            "half a head": self.half_head,
            "broken chunks": self.broken_chunks,
        }

    async def _hang_up(self, order: Order) -> None:
        line = await self._post("/generate", order.body)
        await asyncio.sleep(self._soon())
        await line.drop(reset=self._coin())

    async def _delete(
        self, session: aiohttp.ClientSession, order: Order, when: Callable[[Any], bool]
    ) -> None:
        job = await accept(session, order.body)
        last = ""
        async with events(session, job) as stream:
            async for name, data in stream:
                last = name
                if name == "step" and when(data):
                    await _deleted(session, job)
        demand(last in FINAL - {"failed"}, f"the last event of a cancelled job is {last!r}")

    async def _leave(self, line: Line) -> None:
        if self._coin():
            await line.drop(reset=self._coin())
        else:
            self.left_open.append(line)

    async def _post(self, path: str, body: Mapping[str, Any]) -> Line:
        data = json.dumps(body).encode()
        line = await self._open()
        await line.send(self._head("POST", path, len(data)) + data)
        return line

    async def _get(self, path: str) -> Line:
        line = await self._open()
        await line.send(self._head("GET", path, None))
        demand(b" 200 " in await line.reader.readline(), f"no 200 for {path}")
        await line.reader.readuntil(b"\r\n\r\n")
        return line

    def _head(self, method: str, path: str, length: int | None) -> bytes:
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self._url.authority}"]
        if length is not None:
            lines.append(f"Content-Length: {length}")
        return "\r\n".join([*lines, "Content-Type: application/json", "", ""]).encode()

    async def _open(self) -> Line:
        door = socket.socket()
        door.setblocking(False)
        door.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_WINDOW)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(door, (self._url.host, self._url.port))
        return Line(*await asyncio.open_connection(sock=door, limit=SMALL_WINDOW))

    def _soon(self) -> float:
        return self._chance.uniform(0.01, SOON_SECONDS)

    def _coin(self) -> bool:
        return self._chance.random() < 0.5  # noqa: PLR2004 - a coin has two sides


Rude = Callable[[aiohttp.ClientSession, Order], Awaitable[None]]


async def _deleted(session: aiohttp.ClientSession, job: str) -> None:
    async with session.delete(f"/jobs/{job}") as answer:
        body = await answer.json()
        state = body.get("state")
        demand(state in {"cancelled", "succeeded"}, f"{answer.status}, {state} after DELETE")
