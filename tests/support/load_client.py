"""The one client of all drills: it asks, notes what came, and knows when to come back."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

import aiohttp

ANSWER_SECONDS: Final = 20.0
IMAGE_SECONDS: Final = 240.0
"""For an image in the answer: it waits in the queue, and maybe for an engine."""

POLL_SECONDS: Final = 0.3
LONGEST_WAIT: Final = 10.0
"""A client that only wants its image does not honour a longer Retry-After than this."""

REFUSED: Final = frozenset({HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS})
NOT_FOR_LONG: Final = frozenset({"shutting_down"})
"""Refusals that name no time, for another instance would take the request at once."""

FAILURES: Final = (aiohttp.ClientError, OSError, EOFError, ValueError)
"""What a client meets that gets no answer; a timeout is an OSError."""

PNG: Final = {"Accept": "image/png"}
Heard = Callable[[str, Any], Awaitable[None]]


class WrongAnswerError(Exception):
    """An answer that no client should get."""


def demand(true: object, what: str) -> None:
    """Raise WrongAnswerError unless something is so."""
    if not true:
        raise WrongAnswerError(what)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came back; times are ``time.monotonic``."""

    status: int
    """0 where nothing came."""
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes = b""
    error: str = ""
    sent: float = 0.0
    ended: float = 0.0

    @property
    def body(self) -> dict[str, Any]:
        """The content as JSON; empty where it is none."""
        with suppress(ValueError):
            found = json.loads(self.content)
            if isinstance(found, dict):
                return found
        return {}

    @property
    def code(self) -> str:
        return str(self.body.get("code", ""))

    @property
    def told(self) -> float | None:
        """The Retry-After of a refusal."""
        with suppress(KeyError, ValueError):
            return float(self.headers["Retry-After"]) if self.status in REFUSED else None
        return None

    @property
    def retry_after(self) -> float | None:
        """Seconds after which to ask again; None for a real answer."""
        if self.told is not None:
            return min(self.told, LONGEST_WAIT)
        return POLL_SECONDS if self.status in REFUSED and self.code in NOT_FOR_LONG else None

    def require(self, status: HTTPStatus) -> "Answer":
        """Raise WrongAnswerError for another status, with what came."""
        said = self.error or self.content.decode(errors="replace")
        demand(self.status == status, f"{self.status} in place of {status.value}: {said}")
        return self


class Client:
    """Asks one service, with one key."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url = url
        self.session = session

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        seconds: float = ANSWER_SECONDS,
        **more: Any,
    ) -> Answer:
        """Send a request and return what came, nothing included."""
        sent, timeout = time.monotonic(), aiohttp.ClientTimeout(total=seconds)
        try:
            async with self.session.request(
                method, self.url + path, json=body, timeout=timeout, **more
            ) as answer:
                content = await answer.read()
        except FAILURES as error:
            said = f"{type(error).__name__} {error}".strip()
            return Answer(status=0, error=said, sent=sent, ended=time.monotonic())
        return Answer(
            status=answer.status,
            headers=answer.headers,
            content=content,
            sent=sent,
            ended=time.monotonic(),
        )

    async def generate(self, body: Mapping[str, Any], **more: Any) -> Answer:
        """Ask for images and wait for them."""
        return await self.ask("POST", "/generate", body, **{"seconds": IMAGE_SECONDS, **more})

    async def accept(self, body: Mapping[str, Any], **more: Any) -> str:
        """Hand in a durable job that must be accepted; return its id."""
        answer = await self.ask("POST", "/jobs", body, **more)
        return str(answer.require(HTTPStatus.ACCEPTED).body["id"])

    async def followed(self, job: str, heard: Heard | None = None) -> str:
        """Return the last event of a job; ``heard`` is told the name and data of each."""
        name = ""
        async with self.session.get(f"{self.url}/jobs/{job}/events") as answer:
            demand(answer.status == HTTPStatus.OK, f"{answer.status} for the events of a job")
            async for line in answer.content:
                field_, _, value = line.decode().strip().partition(": ")
                if field_ == "event":
                    name = value
                elif field_ == "data" and heard:
                    await heard(name, json.loads(value))
        return name

    async def listed(self, **query: str) -> dict[str, dict[str, Any]]:
        """Return all jobs of the key by id; those of pages that do not come are missing."""
        found: dict[str, dict[str, Any]] = {}
        query = {"limit": "100", **query}
        while (page := (await self.ask("GET", "/jobs", params=query)).body).get("jobs"):
            found |= {str(job["id"]): job for job in page["jobs"]}
            if page["cursor"] is None:
                break
            query["cursor"] = page["cursor"]
        return found


@asynccontextmanager
async def client_of(url: str, *, key: str = "", source: str = "") -> AsyncIterator[Client]:
    """Hand out a client with any number of connections, from the address ``source``."""
    local = (source, 0) if source else None
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, local_addr=local),
        headers={"X-API-Key": key} if key else None,
    ) as session:
        yield Client(url, session)


@asynccontextmanager
async def background(*work: Coroutine[Any, Any, object]) -> AsyncIterator[None]:
    """Do something else meanwhile, until the end."""
    tasks = [asyncio.create_task(each) for each in work]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def every(seconds: float, act: Callable[[], Awaitable[object]]) -> None:
    """Do something again and again, with so long a pause."""
    while True:
        await act()
        await asyncio.sleep(seconds)


async def paced(
    act: Callable[[], Coroutine[Any, Any, None]], per_second: float, seconds: float
) -> None:
    """Do something at a fixed pace, whether or not it takes longer; wait for all of it."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with asyncio.TaskGroup() as group:
        for number in range(max(round(per_second * seconds), 1)):
            await asyncio.sleep(began + number / per_second - loop.time())
            group.create_task(act())
