"""``GET /metrics``: what Prometheus reads."""

import asyncio
import sys

from aiohttp import web
from aiohttp.typedefs import Handler
from prometheus_client import CollectorRegistry
from prometheus_client.aiohttp import make_aiohttp_handler

from service.http.schema.decorators import docs


def scrape_handler(registry: CollectorRegistry) -> Handler:
    """Build the handler of ``GET /metrics``."""
    written = make_aiohttp_handler(registry, disable_compression=True)
    turn = asyncio.Lock()

    @docs(
        summary="Metrics in the text format of Prometheus, or OpenMetrics if asked for.",
        produces=["text/plain", "application/openmetrics-text"],
    )
    async def scrape(request: web.Request) -> web.Response:
        # It takes some 10 ms of the event loop: however many ask, others come in between.
        async with turn:
            plain = await written(request)
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

    return scrape
