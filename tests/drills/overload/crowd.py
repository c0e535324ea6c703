"""Clients in a closed loop, to see what the service can do, and in an open one, ten times that."""

import asyncio
import random
import time
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from tests.drills.common import images
from tests.drills.common.ledger import Visit
from tests.drills.common.orders import drawn
from tests.support.load_client import PNG, REFUSED, Answer, Client, background

SIZES: Final = ((256, 256), (256, 256), (320, 256), (384, 384))
STEPS: Final = (2, 4, 4, 8, 16)
DEADLINES: Final = (10.0, 40.0, 110.0)
"""Seconds; the shortest are sometimes missed under overload, as they shall be."""

SHARES: Final = {"flood": 0.75, "steady": 0.2, "light": 0.05}
"""Names of the keys and their parts of all that arrives."""

SECRETS: Final = {key: f"overload-{key}-0123456789abcdef" for key in SHARES}
CLOSED_CLIENTS: Final = 8


class Crowd:
    """All clients of one service."""

    def __init__(self, client: Client, seed: int) -> None:
        self.visits: list[Visit] = []
        self._client = client
        self._chance = random.Random(seed)
        self._number = 0

    async def capacity(self, seconds: float) -> float:
        """Return how many images a second come while the engine always has enough to do."""
        finished = 0

        async def again() -> None:
            nonlocal finished
            while True:
                answer = await self._ask(self._next())
                finished += answer.status == HTTPStatus.OK

        begun = time.monotonic()
        async with background(*(again() for _ in range(CLOSED_CLIENTS))):
            await asyncio.sleep(seconds)
        return finished / (time.monotonic() - begun)

    async def arrive(self, per_second: float, seconds: float) -> float:
        """Let clients come whether or not others are served; return when the last one came."""
        at = time.monotonic()
        end = at + seconds
        async with asyncio.TaskGroup() as group:
            while (at := at + self._chance.expovariate(per_second)) < end:
                await asyncio.sleep(max(0.0, at - time.monotonic()))
                self.visits.append(self._next())
                group.create_task(self._visit(self.visits[-1], end))
        return end

    def _next(self) -> Visit:
        """Return the next client; each has a request that nobody else sends."""
        self._number += 1
        body = drawn(self._chance, SIZES, STEPS)
        body["prompt"] += f" no. {self._number}"
        key = self._chance.choices(list(SHARES), weights=list(SHARES.values()))[0]
        return Visit(key=key, body=body, deadline=self._chance.choice(DEADLINES))

    async def _visit(self, visit: Visit, end: float) -> None:
        """Come, and come back exactly when told, as long as that is before the end."""
        while True:
            answer = await self._ask(visit)
            visit.status, visit.flaw = answer.status, flaw(answer, visit.body)
            if answer.told is None:
                if not visit.flaw:
                    visit.admitted, visit.answered = answer.sent, answer.ended
                return
            visit.refused.append(answer.ended)
            visit.told.append(answer.told)
            if answer.ended + answer.told > end:
                visit.left = True
                return
            await asyncio.sleep(answer.told)

    async def _ask(self, visit: Visit) -> Answer:
        own = {"X-API-Key": SECRETS[visit.key], "X-Request-Timeout": str(visit.deadline)}
        return await self._client.generate(visit.body, headers={**PNG, **own})


def flaw(answer: Answer, body: Mapping[str, Any]) -> str:
    """Return what must not come; empty for an image, 408, and a time to come back."""
    if not answer.status:
        return f"no answer: {answer.error}"
    if answer.status == HTTPStatus.OK:
        return images.flaw(answer.content, (body["width"], body["height"]))
    if answer.told is not None or answer.status == HTTPStatus.REQUEST_TIMEOUT:
        return ""
    lack = " without a time to come back" if answer.status in REFUSED else ""
    return f"{answer.status} {answer.code}{lack}"
