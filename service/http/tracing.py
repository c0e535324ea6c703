"""The export of spans, as a part of the application."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from service.http.keys import SPANS
from service.telemetry import traces


def add_to(app: web.Application) -> None:
    """Export spans from the start of ``app`` to its end; call it before other clean-ups.

    What is cleaned up last began first: the spans of the last requests are exported too.
    """
    app.cleanup_ctx.append(_spans)


@asynccontextmanager
async def _spans(app: web.Application) -> AsyncIterator[None]:
    spans = traces.start(os.environ)
    if spans is None:
        yield
        return
    app[SPANS] = spans
    yield
    await asyncio.to_thread(spans.close)
