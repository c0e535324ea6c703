"""One client: sends a request until it has an answer, and counts what came instead."""

import asyncio
import struct
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

import aiohttp

from scripts.benchmark.rows import Row

REFUSED: Final = frozenset({HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS})
PATIENCE: Final = aiohttp.ClientTimeout(total=1800, sock_connect=10)
"""A picture may take minutes; a server that never answers ends the benchmark some time."""

START: Final = b"\x89PNG\r\n\x1a\n"
END: Final = b"IEND\xaeB`\x82"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What became of one request."""

    row: Row
    seconds: float
    """From the first sending to the last byte, with all that it was told to wait."""
    ended: float
    """As ``time.perf_counter``."""
    fault: str = ""
    """Status and code of an answer without a picture."""
    detail: str = ""
    """What such an answer said."""


class Client:
    """All requests to one server, by as many connections as there are clients."""

    def __init__(self, session: aiohttp.ClientSession, url: str, key: str = "") -> None:
        self.refusals: Counter[str] = Counter()
        """Answers that told to come again, by status and code."""
        self._session = session
        self._url = f"{url}/generate"
        # LitServe compresses what it can where a client lets it, and a PNG gains nothing.
        self._headers = {"Accept": "image/png", "Accept-Encoding": "identity"}
        if key:
            self._headers["X-API-Key"] = key

    async def ask(self, row: Row, number: int, last: float = 0.0) -> tuple[Answer, bytes]:
        """Make one picture; return the answer and its body.

        Who is told to come again does so, if that is before ``last``, a ``perf_counter``.
        """
        started = time.perf_counter()
        while True:
            status, content, wait = await self._send(row, number)
            ended = time.perf_counter()
            if not status:
                fault = flaw(content, row)
                break
            if wait is None or ended + wait > last:
                fault = status
                break
            self.refusals[status] += 1
            await asyncio.sleep(wait)
        detail = content.decode(errors="replace") if fault == status else ""
        answer = Answer(
            row=row,
            seconds=ended - started,
            ended=ended,
            fault=fault,
            detail=detail if fault else "",
        )
        return answer, content

    async def _send(self, row: Row, number: int) -> tuple[str, bytes, float | None]:
        """Return what is wrong (nothing for 200), the body, and the seconds of Retry-After."""
        try:
            async with self._session.post(
                self._url, json=row.body(number), headers=self._headers, timeout=PATIENCE
            ) as answer:
                content = await answer.read()
                if answer.status == HTTPStatus.OK:
                    return "", content, None
                code, said = await _problem(answer)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return f"no answer: {type(error).__name__}", str(error).encode(), None
        wait = None
        if answer.status in REFUSED and answer.headers.get("Retry-After", "").isdecimal():
            wait = float(answer.headers["Retry-After"])
        return f"{answer.status} {code}".strip(), said.encode(), wait


async def _problem(answer: aiohttp.ClientResponse) -> tuple[str, str]:
    """Return the code and the text of an error, as far as it has them."""
    try:
        body = await answer.json(content_type=None)
    except ValueError:
        body = None
    if not isinstance(body, dict):
        return "", (await answer.text(errors="replace"))[:200]
    return str(body.get("code", "")), str(body.get("detail", ""))


def flaw(content: bytes, row: Row) -> str:
    """Return what is wrong with a picture; nothing for a whole PNG of the size asked for."""
    if not content.startswith(START) or not content.endswith(END):
        return "200 without a whole PNG"
    size = struct.unpack_from(">II", content, 16)
    if size != (row.width, row.height):
        return f"200 with a picture of {size[0]}x{size[1]}"
    return ""


Told = Callable[[Answer], None]
"""Called with each answer as it comes."""
