"""Where the parts meet: start, work, end."""

import asyncio
import contextlib

import pytest
from aiohttp import web

from service.app import create_app
from service.config.table import Config
from service.engine.base import EngineState
from service.engine.ray.source import RaySource
from service.engine.source import source_of
from service.gpu import sampler
from service.gpu import state as gpu_state
from service.gpu.nvml import GpuReading
from service.http.state import CONFIG, DISPATCHER, GPU, METRICS
from service.telemetry.metrics import Metrics
from tests.support.simulation.fake_engine import FakeEngine

BODY = {"prompt": "a boat", "width": 256, "height": 256, "steps": 2}


async def test_the_engine_starts_and_ends_with_the_application():
    """Nothing runs before the start, and nothing after the end."""
    engine = FakeEngine()
    runner = web.AppRunner(create_app(Config(data_dir=""), engine))
    states = [engine.state]
    await runner.setup()
    states.append(engine.state)
    await runner.cleanup()
    states.append(engine.state)
    assert states == [EngineState.STOPPED, EngineState.READY, EngineState.STOPPED]


def test_the_parts_share_one_set_of_metrics():
    """The caller's, where it brings one."""
    metrics, config = Metrics(), Config(data_dir="", queue_size=7)
    app = create_app(config, FakeEngine(), metrics)
    assert (app[METRICS], app[CONFIG]) == (metrics, config)
    assert metrics.registry.get_sample_value("sd_queue_limit") == 7


def test_the_dispatcher_knows_whether_engines_come_and_go():
    """In a cluster they do, and those of an earlier service may be on their way."""
    sources = (source_of(FakeEngine()), RaySource(Config()))
    found = [create_app(Config(data_dir=""), source)[DISPATCHER] for source in sources]
    assert [each.engines_join for each in found] == [False, True]
    assert [each.adoption_seconds > 0 for each in found] == [False, True]


@pytest.mark.parametrize(("device", "visible"), [("auto", True), ("cuda", True), ("cpu", False)])
async def test_a_gpu_that_is_not_to_be_used_is_not_reported(
    aiohttp_client, monkeypatch, device, *, visible
):
    """DEVICE=cpu on a machine with a GPU: none is available."""
    reading = GpuReading(uuid="GPU-1", name="Some GPU", memory_used=1, memory_total=2)
    monkeypatch.setattr(sampler, "driver", contextlib.nullcontext)
    monkeypatch.setattr(gpu_state, "read", lambda devices: reading if devices == "0" else None)
    client = await aiohttp_client(create_app(Config(data_dir="", device=device), FakeEngine()))
    await asyncio.to_thread(client.app[GPU].wait_for_reading, 30)
    async with client.get("/health") as answer:
        assert visible == (await answer.json())["gpu_available"]


async def test_a_shutdown_finishes_what_was_accepted(aiohttp_client):
    """New work is refused first, then the handlers end, then the engine."""
    engine = FakeEngine(step_seconds=None)
    client = await aiohttp_client(create_app(Config(data_dir=""), engine))
    asked = asyncio.create_task(client.post("/generate", json=BODY))
    await engine.jobs(1)
    await client.app.shutdown()
    async with client.post("/generate", json=BODY) as refused:
        assert refused.status == 503
    await engine.step(2)
    async with await asked as answer:
        assert answer.status == 200
    assert engine.state is EngineState.READY


async def test_what_is_not_finished_in_time_is_answered(aiohttp_client):
    """503 instead of a broken connection."""
    engine = FakeEngine(step_seconds=None)
    config = Config(data_dir="", shutdown_timeout_seconds=0.01)
    client = await aiohttp_client(create_app(config, engine))
    asked = asyncio.create_task(client.post("/generate", json=BODY))
    await engine.jobs(1)
    await client.app.shutdown()
    async with await asked as answer:
        assert (answer.status, (await answer.json(content_type=None))["code"]) == (
            503,
            "shutting_down",
        )


async def test_two_applications_in_one_process_do_not_meet(aiohttp_client):
    """No parser, registry or description is shared."""
    small = await aiohttp_client(create_app(Config(data_dir="", max_steps=30), FakeEngine()))
    large = await aiohttp_client(create_app(Config(data_dir="", max_steps=100), FakeEngine()))
    asked = {**BODY, "steps": 60}
    async with small.post("/generate", json=asked) as refused:
        assert refused.status == 400
    async with large.post("/generate", json=asked) as answer:
        assert answer.status == 200


@pytest.mark.parametrize("count", [1, 5])
async def test_requests_at_the_same_time_share_the_batch(aiohttp_client, count):
    """Each gets its own image."""
    client = await aiohttp_client(create_app(Config(data_dir=""), FakeEngine()))

    async def seed_of(seed: int) -> int:
        async with client.post("/generate", json={**BODY, "seed": seed}) as answer:
            return int((await answer.json())["metadata"]["seed"])

    seeds = await asyncio.gather(*(seed_of(seed) for seed in range(count)))
    assert list(range(count)) == seeds
    assert (client.app[DISPATCHER].depth, client.app[DISPATCHER].running) == (0, 0)
