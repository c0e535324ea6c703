"""What runs beside the jobs that are kept."""

import asyncio

import pytest
from structlog.testing import capture_logs

from service.config.table import Config
from service.jobs.dispatch.dispatcher import Dispatcher
from service.jobs.durable import quota_ledger, store_metrics, wiring
from service.telemetry.metrics import Metrics
from tests.support.jobs.kept_jobs import kept
from tests.support.simulation.fake_engine import FakeEngine


@pytest.mark.parametrize("part", ["sweep", "figures", "usage"])
async def test_what_runs_beside_the_jobs_survives_a_mistake(tmp_path, monkeypatch, part):
    """It is logged, and the next turn is as good as any."""
    for module, name in ((wiring, "SWEEP_SECONDS"), (store_metrics, "SECONDS")):
        monkeypatch.setattr(module, name, 0)
    monkeypatch.setattr(quota_ledger, "RETRY_SECONDS", 0)
    dispatcher = Dispatcher([FakeEngine()], Metrics(), Config())
    folder = kept(tmp_path, dispatcher)
    holder, name = {
        "sweep": (folder.results, "sweep"),
        "figures": (folder.store, "counts"),
        "usage": (folder._ledger, "_flush"),
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
            folder._ledger._kept("alice", 1, 0)
            await again.wait()
    said = {"sweep": "sweep_failed", "figures": "figures_failed", "usage": "usage_not_stored"}
    assert [line["event"] for line in logs if line.get("exc_info")] == [said[part]]
