"""One server under load: clients in a closed loop, and short requests in the midst of long ones."""

import asyncio
import itertools
import random
import struct
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from scripts.benchmark.rows import Point, Row
from tests.support import load_client
from tests.support.load_client import Client

SECONDS: Final = 600.0
"""No request of a turn begins later."""

PATIENCE: Final = 1800.0
"""An image may take minutes; a server that never answers ends the benchmark some time."""

SEED: Final = 1
PAUSE: Final = 0.5
"""Mean pause before a short request, as a share of the time that a long one takes alone."""

AFTER_FAULT: Final = 1.0
"""Seconds until a client that never pauses asks again where the server fails at once."""

# LitServe compresses what it can where a client lets it, and a PNG gains nothing.
HEADERS: Final = {"Accept": "image/png", "Accept-Encoding": "identity"}
START: Final = b"\x89PNG\r\n\x1a\n"
END: Final = b"IEND\xaeB`\x82"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The outcome of one request."""

    row: Row
    seconds: float
    """From the first sending to the last byte, with all that it was told to wait."""
    ended: float
    """As ``time.monotonic``."""
    fault: str = ""
    """Status and code of an answer without an image."""
    refusals: Sequence[str] = ()
    """Answers that told to come again, and were heeded."""


@dataclass(frozen=True, kw_only=True)
class Turn:
    """What one server did in one turn."""

    answers: Sequence[Answer]
    seconds: float
    """From the first request to the last answer."""


async def ask(
    client: Client, row: Row, number: int, last: float = 0.0
) -> tuple[Answer, load_client.Answer]:
    """Make one image; return what became of it, and the last answer.

    Who is told to come again does so, if that is before ``last``, a ``time.monotonic``.
    """
    started = time.monotonic()
    refusals: list[str] = []
    while True:
        found = await client.generate(row.body(number), seconds=PATIENCE, headers=HEADERS)
        fault = flaw(found, row)
        if found.told is None or found.ended + found.told > last:
            break
        refusals.append(fault)
        await asyncio.sleep(found.told)
    seconds = found.ended - started
    answer = Answer(row=row, seconds=seconds, ended=found.ended, fault=fault, refusals=refusals)
    return answer, found


def flaw(found: load_client.Answer, row: Row) -> str:
    """Return what is wrong with an answer; nothing for a whole PNG of the size asked for."""
    if not found.status:
        return f"no answer: {found.error.partition(' ')[0]}"
    if found.status != HTTPStatus.OK:
        return f"{found.status} {found.code}".strip()
    if not found.content.startswith(START) or not found.content.endswith(END):
        return "200 without a whole PNG"
    width, height = struct.unpack_from(">II", found.content, 16)
    if (width, height) != (row.width, row.height):
        return f"200 with an image of {width}x{height}"
    return ""


class Load:
    """Sends what a point asks for to one server, within ``seconds``."""

    def __init__(self, client: Client, seconds: float = SECONDS) -> None:
        self._client = client
        self._answers: list[Answer] = []
        self._started = time.monotonic()
        self._last = self._started + seconds
        self._numbers = itertools.count(1)

    async def run(self, point: Point, requests: int, alone: float = 0.0) -> Turn:
        """Make so many images, of a mixture so many short ones.

        ``alone`` is how many seconds a long image takes when the server does nothing else.
        """
        if point.mixed:
            await self._mixed(point, requests, alone)
        else:
            left = itertools.islice(self._numbers, requests)
            await _together([self._steady(point.rows[0], left) for _ in range(point.clients)])
        last = max(answer.ended for answer in self._answers)
        return Turn(answers=self._answers, seconds=last - self._started)

    async def _steady(self, row: Row, left: "itertools.islice[int]") -> None:
        """Ask for the next image when the one before is there."""
        for number in left:
            if self._late:
                return
            await self._ask(row, number)

    async def _mixed(self, point: Point, requests: int, alone: float) -> None:
        """Let long requests follow each other until so many short ones are answered.

        Short ones come after pauses that are the same for every server.
        """
        chance = random.Random(SEED)  # noqa: S311 - a sequence to repeat, not a secret
        pauses = (chance.expovariate(1 / (PAUSE * alone)) for _ in range(requests))
        longs = point.clients // 2
        ended = asyncio.Event()

        async def long() -> None:
            while not ended.is_set() and not self._late:
                if (await self._ask(point.rows[1], next(self._numbers))).fault:
                    await asyncio.sleep(AFTER_FAULT)

        async def short() -> None:
            for pause in pauses:
                if self._late:
                    return
                await asyncio.sleep(pause)
                await self._ask(point.rows[0], next(self._numbers))

        async def shorts() -> None:
            try:
                await _together([short() for _ in range(point.clients - longs)])
            finally:
                ended.set()

        await _together([*(long() for _ in range(longs)), shorts()])

    @property
    def _late(self) -> bool:
        return bool(self._answers) and time.monotonic() > self._last

    async def _ask(self, row: Row, number: int) -> Answer:
        answer, _ = await ask(self._client, row, number, self._last)
        self._answers.append(answer)
        return answer


async def _together(clients: Sequence[Coroutine[Any, Any, None]]) -> None:
    async with asyncio.TaskGroup() as group:
        for client in clients:
            group.create_task(client)
