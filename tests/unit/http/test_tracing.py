"""The export of spans, as a part of the application."""

import threading

import pytest
from aiohttp import web

from service.http import tracing
from service.http.keys import SPANS
from service.telemetry import traces


class Exported:
    """Stands in for what exports spans."""

    def __init__(self) -> None:
        self.closed_by: threading.Thread | None = None

    def close(self) -> None:
        self.closed_by = threading.current_thread()


@pytest.mark.parametrize("exported", [None, Exported()])
async def test_spans_are_there_while_they_are_exported(monkeypatch, exported):
    """The key is absent where tracing is off; nothing starts before the application does."""
    monkeypatch.setattr(traces, "start", lambda _environment: exported)
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
    monkeypatch.setattr(traces, "start", lambda _environment: exported)
    app = web.Application()
    tracing.add_to(app)
    runner = web.AppRunner(app)
    await runner.setup()
    await runner.cleanup()
    assert exported.closed_by not in (None, threading.main_thread())
