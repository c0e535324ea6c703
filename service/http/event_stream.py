"""Server-sent events: a job, followed to its end (HTML Living Standard, 9.2)."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TYPE_CHECKING, Final, cast

from aiohttp import web

from service.jobs.durable.event_log import JobEvent

if TYPE_CHECKING:
    from service.http.server.connection import Connection

KEEP_ALIVE_SECONDS: Final = 15.0
"""Between two signs of life: proxies close a line that is silent for a minute."""

KEEP_ALIVE: Final = b": still there\n\n"
HEADERS: Final = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",  # nginx would collect the events.
}


async def follow(
    request: web.Request,
    stream: web.StreamResponse,
    events: AsyncGenerator[JobEvent, None],
    write: Callable[[JobEvent], Awaitable[None]],
    closing: asyncio.Event | None = None,
) -> None:
    """Hand each event of a job to ``write``, until the last one or until ``closing`` is set.

    A client that is gone ends it by cancelling the task of the request.
    """
    waiting = asyncio.ensure_future(anext(events, None))
    closed = asyncio.ensure_future((closing or asyncio.Event()).wait())
    left = asyncio.ensure_future(cast("Connection", request.protocol).half_closed.wait())
    asked = {left}
    try:
        while True:
            done, _ = await asyncio.wait(
                {waiting, closed, *asked},
                timeout=KEEP_ALIVE_SECONDS,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if closed in done and waiting not in done:
                return
            if waiting not in done:
                asked -= done  # A client that is gone shows when something is written.
                await stream.write(KEEP_ALIVE)
                continue
            event = waiting.result()
            if event is None:
                return
            await write(event)
            waiting = asyncio.ensure_future(anext(events, None))
    finally:
        for each in (waiting, closed, left):
            each.cancel()
        await asyncio.gather(waiting, closed, left, return_exceptions=True)
        await events.aclose()
