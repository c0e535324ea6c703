"""Traces of requests, and the export of their spans."""

import json
import threading

import pytest
from aiohttp import web

from service.config.table import Config
from service.http.middleware import tracing
from service.http.state import SPANS
from service.telemetry import logs, span_export

BODY = {"prompt": "a boat", "width": 256, "height": 256, "steps": 2}
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
OPENMETRICS = {"Accept": "application/openmetrics-text; version=1.0.0"}


class Exported:
    """Stands in for what exports spans."""

    def __init__(self) -> None:
        self.closed_by: threading.Thread | None = None

    def close(self) -> None:
        self.closed_by = threading.current_thread()


@pytest.mark.parametrize("exported", [None, Exported()])
async def test_spans_are_there_while_they_are_exported(monkeypatch, exported):
    """The key is absent where tracing is off; nothing starts before the application does."""
    monkeypatch.setattr(span_export, "start", lambda _environment: exported)
    app = web.Application()
    tracing.add_to(app)
    runner = web.AppRunner(app)
    assert SPANS not in app
    await runner.setup()
    assert exported is app.get(SPANS)
    await runner.cleanup()


async def test_the_last_spans_are_exported_off_the_event_loop(monkeypatch):
    """A collector that hangs does not keep the others from ending."""
    exported = Exported()
    monkeypatch.setattr(span_export, "start", lambda _environment: exported)
    app = web.Application()
    tracing.add_to(app)
    runner = web.AppRunner(app)
    await runner.setup()
    await runner.cleanup()
    assert exported.closed_by not in (None, threading.main_thread())


@pytest.mark.parametrize(
    "name", ["sd_http_request_duration_seconds", "sd_job_duration_seconds", "sd_stage_duration"]
)
async def test_an_exemplar_leads_to_the_trace_of_the_caller(client, name):
    """Of the request, of its job and of its stages."""
    headers = {**TRACEPARENT, "X-Request-ID": "mine"}
    async with client.post("/generate", json=BODY, headers=headers):
        pass
    async with client.get("/metrics", headers=OPENMETRICS) as answer:
        lines = [line for line in (await answer.text()).splitlines() if line.startswith(name)]
    expected = f'# {{request_id="mine",trace_id="{TRACE}"}}'
    assert any(expected in line for line in lines)


async def test_every_line_of_a_request_carries_the_trace_of_its_caller(client, capsys):
    """From the access log to the end of the job."""
    logs.configure(Config(log_format="json"))
    async with client.post("/generate", json=BODY, headers=TRACEPARENT):
        pass
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    events = {line["event"] for line in lines if line.get("trace_id") == TRACE}
    assert {"job_queued", "job_started", "job_ended", "request_answered"} <= events


@pytest.mark.parametrize("headers", [{}, {"traceparent": f"00-{'0' * 32}-00f067aa0ba902b7-01"}])
async def test_no_trace_is_invented(client, capsys, headers):
    """A request without one, or with a broken one, has a request id only."""
    logs.configure(Config(log_format="json"))
    async with client.post("/generate", json=BODY, headers=headers) as answer:
        assert answer.status == 200
    assert "trace_id" not in capsys.readouterr().err
    async with client.get("/metrics", headers=OPENMETRICS) as answer:
        assert "trace_id" not in await answer.text()
