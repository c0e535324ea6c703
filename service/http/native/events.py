"""Events of a job as the native API writes them."""

import json
from collections.abc import Mapping
from functools import partial
from typing import Any

from aiohttp import web

from service.http.event_stream import HEADERS, follow
from service.http.state import CALLER, DEADLINE, JOBS
from service.images.encode import preview
from service.jobs.durable.event_log import PREVIEW, JobEvent
from service.jobs.durable.live_job import LiveJob
from service.jobs.store.stored import StoredJob
from service.system.executors import CONVERSIONS


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

    async def write(event: JobEvent) -> None:
        data = event.data
        if event.kind == PREVIEW:
            data = await CONVERSIONS.run_for(owner, partial(preview, data))
        await stream.write(_event(event.kind, data, event.id))

    seen = request.headers.get("Last-Event-ID", "")
    await follow(request, stream, jobs.events(job, seen, previews=previews), write, jobs.closing)
    return stream


def _event(kind: str, data: Mapping[str, Any], event_id: str) -> bytes:
    lines = [f"event: {kind}", f"data: {json.dumps(data)}"]
    if event_id:
        lines.insert(0, f"id: {event_id}")
    return ("\n".join(lines) + "\n\n").encode()
