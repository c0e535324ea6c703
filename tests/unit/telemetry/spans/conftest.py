"""A collector on loopback, and OpenTelemetry's variables, which point at it."""

import os

import pytest
from aiohttp import web


@pytest.fixture
async def collector(aiohttp_server):
    """Run a collector on loopback."""
    from tests.unit.telemetry.spans.collector import Collector  # noqa: PLC0415 - needs the extra

    received = Collector()

    async def traces(request: web.Request) -> web.Response:
        assert request.content_type == "application/x-protobuf"
        received.bodies.append(await request.read())
        return web.Response(content_type="application/x-protobuf")

    app = web.Application()
    app.router.add_post("/v1/traces", traces)
    received.url = str((await aiohttp_server(app)).make_url("/"))
    return received


@pytest.fixture(autouse=True)
def _environment(monkeypatch, collector):
    """Point OpenTelemetry's variables, and no others, at the collector."""
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    # Every test hears the first complaint.
    monkeypatch.setattr("service.telemetry.spans.SELDOM._next", {})
