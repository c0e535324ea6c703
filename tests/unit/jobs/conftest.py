"""A consumer over an engine whose events the test decides."""

import pytest

from service.config import Config
from service.jobs import durable, endings
from service.jobs.consumer import Consumer
from service.jobs.store import JobStore
from service.telemetry.metrics import Metrics
from tests.scripted_engine import ScriptedEngine


@pytest.fixture
def metrics() -> Metrics:
    """Make metrics in a registry of their own."""
    return Metrics()


@pytest.fixture
async def consumer(metrics):
    """Start a consumer with a batch of two and a queue of two; its engine is not ready yet."""
    config = Config(max_concurrent_requests=2, queue_size=2, shutdown_timeout_seconds=60)
    started = Consumer(ScriptedEngine(), metrics, config)
    await started.start()
    yield started
    await started.stop()


@pytest.fixture
def engine(consumer) -> ScriptedEngine:
    """Return the consumer's engine."""
    assert isinstance(consumer.engine, ScriptedEngine)
    return consumer.engine


@pytest.fixture
def impatient(monkeypatch):
    """Wait for a locked file and for a last end no longer than a test may."""
    monkeypatch.setattr(endings, "CLOSE_SECONDS", 0.01)
    monkeypatch.setattr(
        durable, "JobStore", lambda path, **more: JobStore(path, busy_seconds=0.01, **more)
    )
