"""A dispatcher over an engine whose events the test decides."""

import pytest

from service.config.table import Config
from service.jobs.dispatch.dispatcher import Dispatcher
from service.jobs.durable import result_writer, wiring
from service.jobs.store.sqlite import SqliteStore
from service.telemetry.metrics import Metrics
from tests.support.jobs.scripted_engine import ScriptedEngine


@pytest.fixture
def metrics() -> Metrics:
    """Make metrics in a registry of their own."""
    return Metrics()


@pytest.fixture
async def dispatcher(metrics):
    """Start a dispatcher with a batch of two and a queue of two; its engine is not ready yet."""
    config = Config(max_concurrent_requests=2, queue_size=2, shutdown_timeout_seconds=60)
    started = Dispatcher([ScriptedEngine()], metrics, config)
    await started.start()
    yield started
    await started.stop()


@pytest.fixture
def engine(dispatcher) -> ScriptedEngine:
    """Return the dispatcher's engine."""
    assert isinstance(dispatcher.lead.engine, ScriptedEngine)
    return dispatcher.lead.engine


@pytest.fixture
def impatient(monkeypatch):
    """Wait for a locked file and for a last end no longer than a test may."""
    monkeypatch.setattr(result_writer, "CLOSE_SECONDS", 0.01)
    monkeypatch.setattr(
        wiring, "SqliteStore", lambda path, **more: SqliteStore(path, busy_seconds=0.01, **more)
    )
