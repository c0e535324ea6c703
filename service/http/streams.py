"""Server-sent events: one job, followed to its end (HTML Living Standard, 9.2)."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any, Final

from aiohttp import web

from service.http.keys import DEADLINE
from service.http.pictures import preview
from service.jobs.book import Book
from service.jobs.entry import Entry
from service.jobs.events import PREVIEW
from service.jobs.job import JobState
from service.jobs.stored import StoredJob

KEEP_ALIVE_SECONDS: Final = 15.0
"""Between two signs of life: proxies close a line that is silent for a minute."""

HEADERS: Final = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",  # nginx would collect the events.
}
LAST_WORD: Final = {
    JobState.SUCCEEDED: "finished",
    JobState.FAILED: "failed",
    JobState.CANCELLED: "cancelled",
}


async def event_stream(
    request: web.Request, book: Book, stored: StoredJob, entry: Entry | None, *, previews: bool
) -> web.StreamResponse:
    """Stream a job's events until it is over; of one that is over the last word alone.

    A stream may last longer than a request, and ends when the service does.
    """
    request[DEADLINE].reschedule(None)
    stream = web.StreamResponse(headers=HEADERS)
    await stream.prepare(request)
    if entry is None:
        data: dict[str, Any] = {"id": stored.id}
        if stored.error_code:
            data |= {"code": stored.error_code, "detail": stored.error_detail}
        await stream.write(_event(LAST_WORD[stored.state], data))
        return stream
    events = book.events(entry, request.headers.get("Last-Event-ID", ""), previews=previews)
    waiting = asyncio.ensure_future(anext(events, None))
    closing = asyncio.ensure_future(book.closing.wait())
    try:
        while True:
            done, _ = await asyncio.wait(
                {waiting, closing},
                timeout=KEEP_ALIVE_SECONDS,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if closing in done:
                return stream
            if not done:
                await stream.write(b": still there\n\n")
                continue
            event = waiting.result()
            if event is None:
                return stream
            told = event.data
            if event.kind == PREVIEW:
                told = await asyncio.to_thread(preview, told)
            await stream.write(_event(event.kind, told, event.id))
            waiting = asyncio.ensure_future(anext(events, None))
    finally:
        waiting.cancel()
        closing.cancel()
        await asyncio.gather(waiting, closing, return_exceptions=True)
        await events.aclose()


def _event(kind: str, data: Mapping[str, Any], event_id: str = "") -> bytes:
    lines = [f"event: {kind}", f"data: {json.dumps(data)}"]
    if event_id:
        lines.insert(0, f"id: {event_id}")
    return ("\n".join(lines) + "\n\n").encode()
