"""The export of spans: its settings, and collectors that are down or hang."""

import asyncio
import json
import socket

import pytest
from aiohttp import web

from service.config.table import Config
from service.telemetry import logs
from tests.unit.telemetry.spans.collector import BODY, CHATTY, PARENT, TRACE


async def test_the_settings_are_opentelemetrys_own(serve, collector, monkeypatch):
    """Name and attributes of the service, for example."""
    monkeypatch.setenv("OTEL_SERVICE_NAME", "images")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
    client = await serve()
    async with client.post("/generate", json=BODY):
        pass
    await client.close()
    named = collector.resource
    assert (named["service.name"], named["deployment.environment.name"]) == ("images", "test")


@pytest.mark.parametrize(
    ("name", "value"), [("OTEL_TRACES_SAMPLER", "always_off"), ("OTEL_SDK_DISABLED", "true")]
)
async def test_nothing_is_exported_that_is_not_wanted(serve, collector, monkeypatch, name, value):
    """A sampler, and the switch for everything."""
    monkeypatch.setenv(name, value)
    client = await serve()
    async with client.post("/generate", json=BODY) as answer:
        assert answer.status == 200
    await client.close()
    assert collector.bodies == []


async def test_a_caller_who_does_not_record_is_not_recorded(serve, collector):
    """The usual sampler follows the caller; the log has the trace all the same."""
    client = await serve()
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-00"}
    async with client.post("/generate", json=BODY, headers=headers) as answer:
        assert answer.status == 200
    await client.close()
    assert collector.bodies == []


async def test_a_collector_that_is_down_fails_nothing_and_is_one_line(serve, capsys, monkeypatch):
    """Requests are answered, the end comes in time, and the log is not flooded."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "1")
    monkeypatch.setattr("service.telemetry.spans.FLUSH_SECONDS", 0.05)
    logs.configure(Config(log_format="json"))
    client = await serve()
    text = ""
    while CHATTY[0] not in text:
        async with client.post("/generate", json=BODY) as answer:
            assert answer.status == 200
        text += capsys.readouterr().err
    await client.close()
    text += capsys.readouterr().err
    lines = [json.loads(line) for line in text.splitlines()]
    (complaint,) = [line for line in lines if line["logger"] in CHATTY]
    assert "refused" in complaint["event"]
    assert [line["event"] for line in lines].count("last_spans_lost") == 1


async def test_a_collector_that_hangs_does_not_hold_up_the_end(serve, aiohttp_server, monkeypatch):
    """What it does not take in time is lost."""
    never, asked = asyncio.Event(), asyncio.Event()

    async def traces(_request: web.Request) -> web.Response:
        asked.set()
        await never.wait()
        return web.Response()

    app = web.Application()
    app.router.add_post("/v1/traces", traces)
    server = await aiohttp_server(app)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", str(server.make_url("/")))
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "1")
    monkeypatch.setattr("service.telemetry.spans.FLUSH_SECONDS", 0.05)
    client = await serve()
    async with client.post("/generate", json=BODY):
        pass
    await asked.wait()
    await client.close()
    assert not never.is_set()
    never.set()


@pytest.mark.parametrize(
    ("setting", "event"),
    [
        (("OTEL_BSP_MAX_QUEUE_SIZE", "0"), "tracing_not_started"),
        (("OTEL_EXPORTER_OTLP_ENDPOINT", "http://[::1"), "tracing_not_started"),
        (("OTEL_EXPORTER_OTLP_ENDPOINT", "localhost:4318"), "tracing_not_started"),
        (("OTEL_EXPORTER_OTLP_ENDPOINT", "not a url"), "tracing_not_started"),
        (("OTEL_EXPORTER_OTLP_ENDPOINT", "://"), "tracing_not_started"),
        (("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"), "tracing_protocol_unknown"),
        (("OTEL_EXPORTER_OTLP_ENDPOINT", "http://me:SECRET@127.0.0.1:9"), "tracing_started"),
    ],
)
async def test_settings_that_cannot_be_used_are_a_line_and_not_the_end(
    serve, capsys, monkeypatch, setting, event
):
    """The service is worth more than its traces; a password is not shown."""
    monkeypatch.setenv(*setting)
    logs.configure(Config(log_format="json"))
    client = await serve()
    async with client.get("/health") as answer:
        assert answer.status == 200
    await client.close()
    text = capsys.readouterr().err
    assert event in {json.loads(line)["event"] for line in text.splitlines()}
    assert "SECRET" not in text
