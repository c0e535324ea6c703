"""``GET /metrics``: what Prometheus reads."""

import asyncio
import sys

from aiohttp import web
from prometheus_client.aiohttp import make_aiohttp_handler

from service.http.schema.decorators import docs
from service.http.state import METRICS, SCRAPING


@docs(
    summary="Metrics in the text format of Prometheus, or OpenMetrics if asked for.",
    produces=["text/plain", "application/openmetrics-text"],
)
async def scrape(request: web.Request) -> web.Response:
    """Answer with all metrics."""
    write = make_aiohttp_handler(request.app[METRICS].registry, disable_compression=True)
    # It takes some 10 ms of the event loop: however many ask, others come in between.
    async with request.app[SCRAPING]:
        plain = await write(request)
        await asyncio.sleep(0)
    assert isinstance(plain, web.Response)  # noqa: S101 - tells mypy what it makes
    # Compressed here in a millisecond: above the size aiohttp would use asyncio's default
    # executor, which other calls can hold up.
    answer = web.Response(
        status=plain.status,
        headers=plain.headers,
        body=plain.body,
        zlib_executor_size=sys.maxsize,
    )
    answer.enable_compression()
    return answer
