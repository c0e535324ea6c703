"""Server-sent events: one job, followed to its end (HTML Living Standard, 9.2)."""

import asyncio
import json
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

from aiohttp import web

from service.http.state import CALLER, DEADLINE, JOBS
from service.images.encode import preview
from service.jobs.durable.event_log import PREVIEW
from service.jobs.durable.live_job import LiveJob
from service.jobs.store.stored import StoredJob
from service.system.executors import CONVERSIONS

if TYPE_CHECKING:
    from service.http.server.connection import Connection

KEEP_ALIVE_SECONDS: Final = 15.0
"""Between two signs of life: proxies close a line that is silent for a minute."""

HEADERS: Final = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",  # nginx would collect the events.
}


async def event_stream(
    request: web.Request, job: LiveJob | StoredJob, *, previews: bool
) -> web.StreamResponse:
    """Stream a job's events until it is over.

    A stream may last longer than a request, and ends when the service does.
    """
    request[DEADLINE].reschedule(None)
    stream = web.StreamResponse(headers=HEADERS)
    await stream.prepare(request)
    jobs, owner = request.app[JOBS], request[CALLER].name
    events = jobs.events(job, request.headers.get("Last-Event-ID", ""), previews=previews)
    waiting = asyncio.ensure_future(anext(events, None))
    closing = asyncio.ensure_future(jobs.closing.wait())
    left = asyncio.ensure_future(cast("Connection", request.protocol).half_closed.wait())
    asked = {left}
    try:
        while True:
            done, _ = await asyncio.wait(
                {waiting, closing, *asked},
                timeout=KEEP_ALIVE_SECONDS,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if closing in done and waiting not in done:
                return stream
            if waiting not in done:
                asked -= done  # A client that is gone shows when something is written.
                await stream.write(b": still there\n\n")
                continue
            event = waiting.result()
            if event is None:
                return stream
            data = event.data
            if event.kind == PREVIEW:
                data = await CONVERSIONS.run_for(owner, partial(preview, data))
            await stream.write(_event(event.kind, data, event.id))
            waiting = asyncio.ensure_future(anext(events, None))
    finally:
        waiting.cancel()
        closing.cancel()
        left.cancel()
        await asyncio.gather(waiting, closing, left, return_exceptions=True)
        await events.aclose()


def _event(kind: str, data: Mapping[str, Any], event_id: str) -> bytes:
    lines = [f"event: {kind}", f"data: {json.dumps(data)}"]
    if event_id:
        lines.insert(0, f"id: {event_id}")
    return ("\n".join(lines) + "\n\n").encode()
