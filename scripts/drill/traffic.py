"""Clients of the service: pictures small enough for two cores, asked for one after another."""

import asyncio
import contextlib
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any, Final

import aiohttp

SMALL: Final = {"width": 128, "height": 128, "steps": 4, "guidance_scale": 3.0}
"""A denoising step of it takes 10 to 30 ms of one core."""

PROMPTS: Final = ("a cabin in the woods", "a lighthouse at dusk", "a robot in a garden")
SAMPLERS: Final = ("dpmpp_2m", "euler", "euler_a", "ddim", "heun")
FEW: Final = 4
PAUSE_SECONDS: Final = 0.3
"""Between two requests of one client; longer than an answer of a service that refuses."""

PATIENCE_SECONDS: Final = 240.0


class Traffic:
    """All clients; ``answers`` counts what they were told, 0 for no answer at all."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.answers: Counter[int] = Counter()

    async def picture(self, session: aiohttp.ClientSession, **fields: Any) -> int:
        """Ask for one picture and return the status."""
        body = {"prompt": PROMPTS[0], **SMALL, **fields}
        status = 0
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            async with session.post(f"{self._url}/generate", json=body) as answer:
                await answer.read()
                status = answer.status
        self.answers[status] += 1
        return status

    @asynccontextmanager
    async def clients(self, count: int, **fields: Any) -> AsyncIterator[None]:
        """Keep so many clients asking; those who still wait at the end hang up."""
        async with _session() as session:
            tasks = [
                asyncio.create_task(self._ask(session, _varied(number), fields))
                for number in range(count)
            ]
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _ask(
        self,
        session: aiohttp.ClientSession,
        varied: Iterator[dict[str, Any]],
        fields: dict[str, Any],
    ) -> None:
        for each in varied:
            await self.picture(session, **each | fields)
            await asyncio.sleep(PAUSE_SECONDS)

    @asynccontextmanager
    async def jobs(self, **fields: Any) -> AsyncIterator[None]:
        """Keep handing in jobs, whatever comes of them."""

        async def again(session: aiohttp.ClientSession) -> None:
            while True:
                with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                    body = {"prompt": PROMPTS[0], **SMALL, "steps": 1, **fields}
                    async with session.post(f"{self._url}/jobs", json=body) as answer:
                        await answer.read()
                await asyncio.sleep(PAUSE_SECONDS)

        async with _session() as session:
            task = asyncio.create_task(again(session))
            try:
                yield
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    async def few(self) -> None:
        """Ask for some of the smallest pictures, two at a time, to see how fast this machine is."""

        async def some(session: aiohttp.ClientSession) -> None:
            for _ in range(FEW):
                await self.picture(session)

        async with _session() as session:
            await asyncio.gather(some(session), some(session))

    async def tour(self) -> None:
        """Show the service one of each kind of request, good and bad."""
        async with _session() as session:
            for sampler in SAMPLERS:
                await self.picture(session, sampler=sampler)
            await self.picture(session, num_images=2)
            await self.picture(session, width=256, height=256)
            await self.picture(session, width=512, height=512, steps=2)
            await self.picture(session, width=768, height=512, steps=1)
            await self.picture(session, steps=-1)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PAUSE_SECONDS):  # Who hangs up is counted, too.
                    await self.picture(session, steps=50)
            for path in ("health", "no-such-path"):
                with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                    async with session.get(f"{self._url}/{path}") as answer:
                        self.answers[answer.status] += 1

    @property
    def served(self) -> int:
        """Pictures that came."""
        return self.answers[HTTPStatus.OK]


def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(total=PATIENCE_SECONDS),
        connector=aiohttp.TCPConnector(limit=0),
    )


def _varied(start: int) -> Iterator[dict[str, Any]]:
    """Yield seeds, prompts and samplers that differ from request to request."""
    for number in itertools.count(start):
        yield {
            "prompt": PROMPTS[number % len(PROMPTS)],
            "sampler": SAMPLERS[number % len(SAMPLERS)],
            "seed": number,
        }
