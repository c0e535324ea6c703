"""The loads: clients in a closed loop, and short requests in the midst of long ones."""

import asyncio
import itertools
import random
import time
from collections import Counter
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Final

from scripts.benchmark.client import Answer, Client, Told
from scripts.benchmark.rows import Mixed, Row, Steady

SEED: Final = 1
PAUSE: Final = 0.5
"""Mean pause before a short request, as a share of the time that a long one takes alone."""

AFTER_FAULT: Final = 1.0
"""Seconds until a client that never pauses asks again where the server fails at once."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What one server did in one turn."""

    answers: Sequence[Answer]
    refusals: Counter[str]
    seconds: float
    """From the first request to the last answer."""


class Load:
    """Sends what a point asks for, and no request more than ``seconds`` after the start."""

    def __init__(self, client: Client, told: Told, seconds: float) -> None:
        self._client = client
        self._told = told
        self._answers: list[Answer] = []
        self._started = time.perf_counter()
        self._last = self._started + seconds
        self._numbers = itertools.count(1)

    async def steady(self, point: Steady, requests: int) -> Measured:
        """Let every client ask for the next picture when it has the one before."""
        left = itertools.islice(self._numbers, requests)

        async def again() -> None:
            for number in left:
                if self._late:
                    return
                await self._ask(point.row, number)

        await _together([again() for _ in range(point.clients)])
        return self._measured()

    async def mixed(self, point: Mixed, requests: int, alone: float) -> Measured:
        """Let long requests follow each other until so many short ones are answered.

        Short ones come after pauses that are the same for every server; ``alone`` is how many
        seconds a long one takes with nothing beside it.
        """
        chance = random.Random(SEED)  # noqa: S311 - a sequence to repeat, not a secret
        pauses = (chance.expovariate(1 / (PAUSE * alone)) for _ in range(requests))
        longs = max(1, point.clients // 2)
        ended = asyncio.Event()

        async def long() -> None:
            while not ended.is_set() and not self._late:
                if (await self._ask(point.long, next(self._numbers))).fault:
                    await asyncio.sleep(AFTER_FAULT)

        async def short() -> None:
            for pause in pauses:
                if self._late:
                    return
                await asyncio.sleep(pause)
                await self._ask(point.short, next(self._numbers))

        async def shorts() -> None:
            try:
                await _together([short() for _ in range(max(1, point.clients - longs))])
            finally:
                ended.set()

        await _together([*(long() for _ in range(longs)), shorts()])
        return self._measured()

    @property
    def _late(self) -> bool:
        return bool(self._answers) and time.perf_counter() > self._last

    async def _ask(self, row: Row, number: int) -> Answer:
        answer, _ = await self._client.ask(row, number, self._last)
        self._answers.append(answer)
        self._told(answer)
        return answer

    def _measured(self) -> Measured:
        refusals, self._client.refusals = self._client.refusals, Counter()
        last = max(answer.ended for answer in self._answers)
        return Measured(answers=self._answers, refusals=refusals, seconds=last - self._started)


async def _together(clients: Sequence[Coroutine[Any, Any, None]]) -> None:
    async with asyncio.TaskGroup() as group:
        for client in clients:
            group.create_task(client)
