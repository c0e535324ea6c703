"""What runs beside the jobs that are kept."""

import asyncio

import pytest
from structlog.testing import capture_logs

from service.config import Config
from service.engine.fake import FakeEngine
from service.jobs import durable, figures, usage
from service.jobs.consumer import Consumer
from service.telemetry.metrics import Metrics
from tests.kept_jobs import kept


@pytest.mark.parametrize("part", ["sweep", "figures", "usage"])
async def test_what_runs_beside_the_jobs_survives_a_mistake(tmp_path, monkeypatch, part):
    """It is logged, and the next turn is as good as any."""
    for module, name in ((durable, "SWEEP_SECONDS"), (figures, "SECONDS")):
        monkeypatch.setattr(module, name, 0)
    monkeypatch.setattr(usage, "RETRY_SECONDS", 0)
    consumer = Consumer(FakeEngine(), Metrics(), Config())
    folder = kept(tmp_path, consumer)
    holder, name = {
        "sweep": (folder.results, "sweep"),
        "figures": (folder.store, "counts"),
        "usage": (folder._usage, "_flush"),
    }[part]
    works, turns, again = getattr(holder, name), [], asyncio.Event()
    loop = asyncio.get_running_loop()

    def mistaken(*args):
        turns.append(part)
        if len(turns) == 1:
            raise RuntimeError("a mistake")
        loop.call_soon_threadsafe(again.set)
        return works(*args)

    monkeypatch.setattr(holder, name, mistaken)
    with capture_logs() as logs:
        async with asyncio.timeout(20), folder.opened():
            folder._usage._kept("alice", 1, 0)
            await again.wait()
    said = {"sweep": "sweep_failed", "figures": "figures_failed", "usage": "usage_not_stored"}
    assert [line["event"] for line in logs if line.get("exc_info")] == [said[part]]
