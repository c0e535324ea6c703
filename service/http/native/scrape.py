"""``GET /metrics``: what Prometheus reads."""

import asyncio
import time
import zlib
from collections.abc import Iterator
from typing import Final

from aiohttp import hdrs, web
from prometheus_client.exposition import choose_encoder

from service.http.schema.decorators import docs
from service.http.state import METRICS, SCRAPING
from service.telemetry.exposition import Format

SLICE_SECONDS: Final = 0.01
"""How long the event loop writes metrics before others come in: every engine has some 400."""

PIECE: Final = 32 * 1024
"""Characters that are packed at a time, in about half a millisecond."""

GZIP: Final = zlib.MAX_WBITS + 16


@docs(
    summary="Metrics in the text format of Prometheus, or OpenMetrics if asked for.",
    produces=["text/plain", "application/openmetrics-text"],
)
async def scrape(request: web.Request) -> web.Response:
    """Answer with all metrics."""
    headers: dict[str, str] = {}
    packer = None
    if "gzip" in request.headers.get(hdrs.ACCEPT_ENCODING, "").lower():
        headers[hdrs.CONTENT_ENCODING], packer = "gzip", zlib.compressobj(wbits=GZIP)
    async with request.app[SCRAPING]:
        body, began = [], time.perf_counter()
        for piece in joined(texts(request, headers)):
            body.append(packer.compress(piece) if packer else piece)
            if time.perf_counter() - began > SLICE_SECONDS:
                await asyncio.sleep(0)
                began = time.perf_counter()
    if packer:
        body.append(packer.flush())
    return web.Response(headers=headers, body=b"".join(body))


def texts(request: web.Request, headers: dict[str, str]) -> Iterator[str]:
    """Return the text of what ``request`` asks for; put its type in ``headers``."""
    metrics = request.app[METRICS]
    names = request.query.getall("name[]", [])
    write, name = choose_encoder(",".join(request.headers.getall(hdrs.ACCEPT, [])))
    headers[hdrs.CONTENT_TYPE] = name
    collectors = [metrics.registry.restricted_registry(names)] if names else metrics.collectors
    return Format(write, name).pieces(collectors)


def joined(texts: Iterator[str]) -> Iterator[bytes]:
    """Yield the same as bytes, in pieces of about one size."""
    held, size = [], 0
    for text in texts:
        held.append(text)
        size += len(text)
        if size >= PIECE:
            yield "".join(held).encode()
            held, size = [], 0
    yield "".join(held).encode()
