"""Connections that HTTP libraries would not make: held, left in mid-sentence, never read."""

import asyncio
import json
import select
import socket
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

CONNECT_SECONDS: Final = 5.0
ANSWER_SECONDS: Final = 15.0
TICK_SECONDS: Final = 0.05
SMALL_WINDOW: Final = 4096
"""Receive buffer in bytes: the rest of an answer that nobody reads stays with the service."""

STATUS_BYTES: Final = len("HTTP/1.1 200")
ENDED: Final = select.POLLRDHUP | select.POLLHUP | select.POLLERR


@dataclass(frozen=True, kw_only=True)
class Target:
    """The service as one client sees it."""

    port: int
    key: str = ""
    source: str = "127.0.0.1"
    """The client's own address."""

    def request(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        *,
        length: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> bytes:
        """Return a request as it is sent; ``length`` promises another length of its body."""
        lines = {
            "Host": f"127.0.0.1:{self.port}",
            "X-API-Key": self.key,
            "Content-Type": "application/json",
            "Content-Length": str(len(body) if length is None else length),
            **(headers or {}),
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value)
        return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + body

    async def connect(self, receive: int = 0) -> socket.socket:
        """Connect from the client's address; ``receive`` is the size of its receive buffer.

        Raises:
            OSError: there was no connection; TimeoutError is one.

        """
        made = socket.socket()
        try:
            made.setblocking(False)
            if receive:
                made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
            made.bind((self.source, 0))
            async with asyncio.timeout(CONNECT_SECONDS):
                await asyncio.get_running_loop().sock_connect(made, ("127.0.0.1", self.port))
        except BaseException:
            made.close()
            raise
        return made


class Line:
    """A connection that asks and reads, and is made again when it was closed."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(
        self, method: str, path: str, content: Any = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, bytes]:
        """Return status and body of the answer; status 0 where there was none."""
        body = b"" if content is None else json.dumps(content).encode()
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                if self._streams is None:
                    made = await self.target.connect()
                    self._streams = await asyncio.open_connection(sock=made)
                reader, writer = self._streams
                writer.write(self.target.request(method, path, body, headers=headers))
                return await self._answer(reader)
        except (OSError, EOFError, ValueError):
            self.close()
            return 0, b""

    async def _answer(self, reader: asyncio.StreamReader) -> tuple[int, bytes]:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"content-length:")[2].split(b"\r\n")[0])
        body = await reader.readexactly(length)
        if b"connection: close" in head:
            self.close()
        return int(head.split()[1]), body

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


class Held:
    """Connections that send one request each and read nothing, as many as can be had."""

    def __init__(
        self, target: Target, request: Callable[[int], bytes | None], tally: Counter[str]
    ) -> None:
        self._target, self._request, self._tally = target, request, tally
        self._open: dict[int, socket.socket] = {}
        self._poll = select.poll()
        self._number = 0

    async def keep(self, most: int, per_second: float, going: asyncio.Event) -> None:
        """Keep ``most`` of them open, and make so many new ones in a second at most."""
        allowed = 0.0
        try:
            while True:
                await going.wait()
                await asyncio.sleep(TICK_SECONDS)
                self._drop_ended()
                allowed = min(allowed + per_second * TICK_SECONDS, per_second)
                while allowed >= 1 and len(self._open) < most:
                    allowed -= 1
                    if not await self._make():
                        break
                self._tally["most open"] = max(self._tally["most open"], len(self._open))
        finally:
            for each in self._open.values():
                each.close()

    async def _make(self) -> bool:
        request = self._request(self._number)
        if request is None:
            return False
        self._number += 1
        try:
            made = await self._target.connect(SMALL_WINDOW)
            # It is new and the request is short: it goes into the kernel's buffer at once.
            made.send(request)
        except OSError as error:
            self._tally[type(error).__name__] += 1
            return False
        self._open[made.fileno()] = made
        self._poll.register(made, ENDED)
        self._tally["opened"] += 1
        return True

    def _drop_ended(self) -> None:
        """Close what the service has closed, and note what it answered before that."""
        for number, _ in self._poll.poll(0):
            self._poll.unregister(number)
            ended = self._open.pop(number)
            answer = b""
            with suppress(OSError):  # It was reset.
                answer = ended.recv(STATUS_BYTES)
            ended.close()
            self._tally[answer[-3:].decode("ascii", "replace") or "cut off"] += 1
