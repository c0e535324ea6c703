"""Clients in a closed loop, to see what the service can do, and in an open one, ten times that."""

import asyncio
import random
import time
from contextlib import suppress
from http import HTTPStatus
from typing import Final

import aiohttp

from scripts.overload_drill.visit import SHARES, Visit, visitor

CLOSED_CLIENTS: Final = 8
PATIENCE_SECONDS: Final = 180.0
REFUSED: Final = frozenset({HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS})
SECRETS: Final = {key: f"overload-{key}-0123456789abcdef" for key in SHARES}


class Crowd:
    """All clients of one service."""

    def __init__(self, url: str, session: aiohttp.ClientSession, seed: int) -> None:
        self.visits: list[Visit] = []
        self._url = f"{url}/generate"
        self._session = session
        self._chance = random.Random(seed)  # noqa: S311 - repeatable, not secret
        self._number = 0

    async def capacity(self, seconds: float) -> float:
        """Return how many pictures a second come while the engine always has enough to do."""
        finished: list[float] = []
        begun = time.monotonic()

        async def again() -> None:
            while True:
                visit = self._next()
                await self._ask(visit)
                if visit.status == HTTPStatus.OK:
                    finished.append(time.monotonic())

        tasks = [asyncio.create_task(again()) for _ in range(CLOSED_CLIENTS)]
        await asyncio.wait(tasks, timeout=seconds)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return len(finished) / (time.monotonic() - begun)

    async def arrive(self, per_second: float, seconds: float) -> float:
        """Let clients come whether or not others are served; return when the last one came."""
        begun = time.monotonic()
        end = begun + seconds
        tasks: list[asyncio.Task[None]] = []
        at = begun
        while (at := at + self._chance.expovariate(per_second)) < end:
            await asyncio.sleep(max(0.0, at - time.monotonic()))
            visit = self._next()
            self.visits.append(visit)
            tasks.append(asyncio.create_task(self._visit(visit, end)))
        if tasks:
            await asyncio.wait(tasks)
        for task in tasks:
            task.result()
        return end

    def _next(self) -> Visit:
        self._number += 1
        return visitor(self._chance, self._number)

    async def _visit(self, visit: Visit, end: float) -> None:
        """Come, and come back exactly when told, as long as that is before the end."""
        while True:
            sent = time.monotonic()
            seconds = await self._ask(visit)
            now = time.monotonic()
            if seconds is None:
                if not visit.flaw:
                    visit.admitted, visit.answered = sent, now
                return
            visit.refused.append(now)
            visit.told.append(seconds)
            if now + seconds > end:
                visit.left = True
                return
            await asyncio.sleep(seconds)

    async def _ask(self, visit: Visit) -> float | None:
        """Send the request; return the seconds after which to come back, None for an answer."""
        headers = {
            "X-API-Key": SECRETS[visit.key],
            "X-Request-Timeout": str(visit.deadline),
            "Accept": "image/png",
        }
        timeout = aiohttp.ClientTimeout(total=PATIENCE_SECONDS)
        try:
            async with self._session.post(
                self._url, json=visit.body, headers=headers, timeout=timeout
            ) as answer:
                content = await answer.read()
                visit.status = answer.status
                visit.code = ""
                if answer.status != HTTPStatus.OK:
                    visit.code = str((await answer.json(content_type=None)).get("code"))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            visit.flaw = f"no answer: {type(error).__name__} {error}"
            return None
        if answer.status in REFUSED:
            with suppress(KeyError, ValueError):
                return float(answer.headers["Retry-After"])
            visit.flaw = f"{answer.status} {visit.code} without a time to come back"
        elif answer.status == HTTPStatus.OK and not content.startswith(b"\x89PNG"):
            visit.flaw = "200 without a picture"
        elif answer.status not in (HTTPStatus.OK, HTTPStatus.REQUEST_TIMEOUT):
            visit.flaw = f"{answer.status} {visit.code}"
        return None
