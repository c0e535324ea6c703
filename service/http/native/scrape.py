"""``GET /metrics``: what Prometheus reads."""

import asyncio
import sys
import time
from collections.abc import Iterable
from typing import Final

from aiohttp import hdrs, web
from prometheus_client import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from service.http.schema.decorators import docs
from service.http.state import METRICS, SCRAPING

SLICE_SECONDS: Final = 0.01
"""How long the event loop writes metrics before others come in: every engine has some 400."""


class Families(Collector):
    """Some families, to be written as if they were all."""

    def __init__(self, *families: Metric) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        """Return them."""
        return self._families


@docs(
    summary="Metrics in the text format of Prometheus, or OpenMetrics if asked for.",
    produces=["text/plain", "application/openmetrics-text"],
)
async def scrape(request: web.Request) -> web.Response:
    """Answer with all metrics."""
    registry: Collector = request.app[METRICS].registry
    if names := request.query.getall("name[]", []):
        registry = request.app[METRICS].registry.restricted_registry(names)
    write, content_type = choose_encoder(",".join(request.headers.getall(hdrs.ACCEPT, [])))
    end, parts = write(Families()), []  # OpenMetrics ends with a line of its own.
    async with request.app[SCRAPING]:
        began = time.perf_counter()
        for family in registry.collect():
            parts.append(write(Families(family)).removesuffix(end))
            if time.perf_counter() - began > SLICE_SECONDS:
                await asyncio.sleep(0)
                began = time.perf_counter()
    # Compressed here in milliseconds: above the size aiohttp would use asyncio's default
    # executor, which other calls can hold up.
    answer = web.Response(
        headers={hdrs.CONTENT_TYPE: content_type},
        body=b"".join((*parts, end)),
        zlib_executor_size=sys.maxsize,
    )
    answer.enable_compression()
    return answer
