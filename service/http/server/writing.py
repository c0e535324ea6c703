"""Writing of answers in pieces, as fast as the client reads them.

A transport keeps the bytes that the system does not take at once. Of a large answer that would
be all of it, once for each client that does not read, and other requests would wait meanwhile.
"""

import asyncio
import socket
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Final
from weakref import WeakValueDictionary

from aiohttp import http, web
from multidict import CIMultiDict

from service.http.server.half_close import BEGINNING

PIECE: Final = 32 * 1024
"""Bytes; an image of 1 MB is 32 pieces."""

HIGH_WATER: Final = 16 * 1024
"""Bytes that a transport keeps before the next piece waits."""

UNSENT: Final = 64 * 1024
"""Bytes that the system keeps and has not sent, apart from those that are on their way."""


def narrow(transport: asyncio.Transport) -> None:
    """Limit the bytes kept for a client that does not read, here and in the system."""
    transport.set_write_buffer_limits(high=HIGH_WATER)
    line = transport.get_extra_info("socket")
    if line is not None and hasattr(socket, "TCP_NOTSENT_LOWAT"):
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT)


@dataclass(frozen=True)
class Body:
    """Bytes of an answer; they are freed with the last answer that has them."""

    content: bytes


BODY: Final = web.ResponseKey("body", Body)


class Shared:
    """Bodies that are being sent; a body that many clients are sent is kept once."""

    def __init__(self) -> None:
        self._bodies: WeakValueDictionary[Hashable, Body] = WeakValueDictionary()

    def __len__(self) -> int:
        return len(self._bodies)

    def get(self, name: Hashable) -> Body | None:
        """Return the body of that name, if it is being sent."""
        return self._bodies.get(name)

    def keep(self, name: Hashable, content: bytes) -> Body:
        """Return the body of that name: one that is being sent, or one of ``content``."""
        body = Body(content)
        return self._bodies.setdefault(name, body)


class PieceWriter(http.StreamWriter):
    """Writer of one answer; ``wrote`` counts the bytes given to the transport."""

    wrote: Callable[[int], None]

    _begun = 0
    """Bytes that were written ahead."""

    def write_ahead(self) -> None:
        """Write the next byte of ``BEGINNING``, unless the answer has begun."""
        if not self.output_size and self._begun < len(BEGINNING) and self.transport is not None:
            self.transport.write(BEGINNING[self._begun : self._begun + 1])
            self._begun += 1

    async def write_headers(self, status_line: str, headers: CIMultiDict[str]) -> None:
        """Write the status line, as far as it is not written, and the headers."""
        await super().write_headers(status_line, headers)
        assert self._headers_buf is not None  # noqa: S101 - they were put there just now
        self._headers_buf = self._headers_buf[self._begun :]

    async def write_eof(self, chunk: bytes = b"") -> None:
        """Write the last of a body, which mostly is all of it."""
        rest = memoryview(chunk)
        if self._compress is None:
            while len(rest) > PIECE:
                await self.write(rest[:PIECE])
                await self.drain()
                await asyncio.sleep(0)  # The others' turn, also where the system takes everything.
                rest = rest[PIECE:]
        await super().write_eof(chunk if len(rest) == len(chunk) else bytes(rest))

    def _write(self, chunk: Any) -> None:
        super()._write(chunk)
        self.wrote(len(chunk))

    def _writelines(self, chunks: Any) -> None:
        super()._writelines(chunks)
        self.wrote(sum(map(len, chunks)))
