"""GET /health, /health/live and /health/ready."""

import asyncio
import dataclasses
from typing import Any

import pytest

from service import __version__
from service.gpu.nvml import GpuReading
from service.http.native.health import gigabytes
from service.http.state import DISPATCHER, GPU
from tests.support.simulation.fake_engine import FAKE_MODEL, FakeEngine

READING = GpuReading(
    uuid="GPU-1", name="Some GPU", memory_used=2_254_857_830, memory_total=6 * 2**30
)


async def health(client) -> Any:
    async with client.get("/health") as answer:
        assert (answer.status, answer.content_type) == (200, "application/json")
        return await answer.json()


async def ready(client) -> tuple[int, str]:
    async with client.get("/health/ready") as answer:
        body = await answer.json(content_type=None)
        return answer.status, body.get("code", body["status"])


async def test_a_service_that_can_make_images_is_healthy(client):
    """The contract, and what operators ask next."""
    client.app[GPU].readings = ()
    body = await health(client)
    assert body.pop("uptime_seconds") >= 0
    assert body.pop("limits")["width"] == {"minimum": 256, "maximum": 768, "multiple_of": 64}
    assert body.pop("defaults")["width"] == 512
    expected = {
        "status": "healthy",
        "gpu_available": False,
        "gpu_memory_used": "0.0 GB",
        "gpu_memory_total": "0.0 GB",
        "model_loaded": True,
        "model": {
            "id": "fake",
            "version": "fake-1",
            "demo": True,
            "device": "cpu",
            "dtype": "float32",
            "family": "sd",
            "prediction_type": "epsilon",
            "prediction_type_from": "default",
            "configuration": "",
            "ignored_tensors": [],
        },
        "engine": {"state": "ready", "restarts": 0, "circuit": "closed", "silent_seconds": 0.0},
        "engines": [
            {
                "name": "0",
                "state": "ready",
                "restarts": 0,
                "circuit": "closed",
                "silent_seconds": 0.0,
                "leaving": False,
                "running": 0,
                "node": "",
                "device": "cpu",
                "gpu": "",
                "models": ["demo"],
            }
        ],
        "queue": {"depth": 0, "limit": 64},
        "running": 0,
        "version": __version__,
    }
    assert expected == body
    assert await ready(client) == (200, "ready")


async def test_the_memory_of_the_gpu_is_what_the_driver_said(client):
    """In GB of 2**30 bytes, with one digit."""
    client.app[GPU].readings = (READING,)
    body = await health(client)
    assert (
        body["gpu_available"],
        body["gpu_memory_used"],
        body["gpu_memory_total"],
    ) == (True, "2.1 GB", "6.0 GB")


async def test_the_memory_of_several_gpus_is_their_sum(client):
    """A GPU that two engines share counts once."""
    second = dataclasses.replace(READING, uuid="GPU-2", memory_used=2**30)
    client.app[GPU].readings = (READING, second, READING)
    body = await health(client)
    assert (body["gpu_memory_used"], body["gpu_memory_total"]) == ("3.1 GB", "12.0 GB")


async def test_a_gpu_that_the_driver_does_not_report_is_available_when_it_is_used(serve):
    """Some boards have CUDA and no NVML; the model on the GPU proves that there is one."""
    model = dataclasses.replace(FAKE_MODEL, gpu=True, device="Some GPU")
    client = await serve(FakeEngine(model=model))
    client.app[GPU].readings = ()
    assert (await health(client))["gpu_available"] is True


async def test_a_service_that_loads_its_model_says_so(serve):
    """It answers from the first moment, and is not ready."""
    engine = FakeEngine(loads=False)
    client = await serve(engine)
    body = await health(client)
    assert (body["status"], body["model_loaded"], body["model"]) == ("loading", False, None)
    assert await ready(client) == (503, "model_unavailable")
    engine.become_ready()
    assert (await health(client))["status"] == "healthy"


async def test_a_crashed_engine_is_restarting(serve):
    """The model it had is still named; images cannot be made."""
    engine = FakeEngine(loads=False)
    client = await serve(engine)
    engine.become_ready()
    engine.crash()
    body = await health(client)
    assert (body["status"], body["model_loaded"]) == ("restarting", False)
    assert (body["engine"]["state"], body["engine"]["restarts"]) == ("restarting", 1)
    assert await ready(client) == (503, "model_unavailable")


class SilentEngine(FakeEngine):
    """Has said nothing for a while."""

    @property
    def silence(self) -> float:
        return 12.3

    @property
    def late(self) -> bool:
        return self.said_late

    said_late = False


async def test_readiness_follows_the_heartbeat(serve):
    """An engine that is silent for too long gets no new requests, before it is killed."""
    engine = SilentEngine()
    client = await serve(engine)
    assert await ready(client) == (200, "ready")
    engine.said_late = True
    assert await ready(client) == (503, "engine_unavailable")
    assert (await health(client))["engine"]["silent_seconds"] == 12.3
    async with client.get("/metrics") as answer:
        metrics = await answer.text()
    assert 'sd_engine_heartbeat_age_seconds{engine="0"} 12.3' in metrics
    assert "sd_ready 0.0" in metrics
    engine.said_late = False
    assert await ready(client) == (200, "ready")


async def test_an_engine_that_keeps_ending_degrades_the_service(serve):
    """New work is refused with a time to come back, and a load balancer sends none."""
    engine = FakeEngine(loads=False, step_seconds=None)
    client = await serve(engine)
    for _ in range(5):
        engine.become_ready()
        engine.crash()
    body = await health(client)
    assert (body["status"], body["engine"]["circuit"]) == ("degraded", "open")
    assert await ready(client) == (503, "engine_unavailable")
    image = {"prompt": "a boat", "width": 256, "height": 256, "steps": 1}
    async with client.post("/generate", json=image) as answer:
        problem = await answer.json(content_type=None)
        assert (answer.status, problem["code"]) == (503, "engine_unavailable")
        assert int(answer.headers["Retry-After"]) >= 1
    engine.become_ready()
    assert (await health(client))["engine"]["circuit"] == "half_open"
    assert await ready(client) == (200, "ready")  # For the one job that is to show it.
    asked = asyncio.create_task(client.post("/generate", json=image))
    await engine.jobs(1)
    assert await ready(client) == (503, "engine_unavailable")
    await engine.step()
    assert (await asked).status == 200
    assert (await health(client))["engine"]["circuit"] == "closed"


async def test_a_model_that_cannot_be_loaded_degrades_the_service(serve):
    """The reason is in the answer; only a person can help."""
    engine = FakeEngine(loads=False)
    client = await serve(engine)
    engine.fail_to_load("The folder has no UNet.")
    body = await health(client)
    assert (body["status"], body["engine"]["failure"]) == ("degraded", "The folder has no UNet.")
    assert await ready(client) == (503, "model_unavailable")


async def test_a_service_that_ends_is_not_ready(client):
    """A load balancer takes it out, while it finishes what it accepted."""
    client.app[DISPATCHER].drain()
    assert (await health(client))["status"] == "shutting_down"
    assert await ready(client) == (503, "shutting_down")


async def test_waiting_and_running_requests_are_counted(serve, queued):
    """The queue's depth and what is in the engine."""
    engine = FakeEngine(step_seconds=None)
    client = await serve(engine, max_concurrent_requests=1, queue_size=5)
    body = {"prompt": "a boat", "width": 256, "height": 256, "steps": 1}
    asked = [asyncio.create_task(client.post("/generate", json=body)) for _ in range(3)]
    await queued(client, 2)
    report = await health(client)
    assert (report["queue"], report["running"]) == ({"depth": 2, "limit": 5}, 1)
    for _ in asked:
        await engine.jobs(1)
        await engine.step()
    assert [(await task).status for task in asked] == [200] * 3


@pytest.mark.parametrize("state", ["loading", "failed", "draining"])
async def test_the_service_lives_whatever_its_engine_does(serve, state):
    """A supervisor must not restart a service that only waits for its model."""
    engine = FakeEngine(loads=False)
    client = await serve(engine)
    if state == "failed":
        engine.fail_to_load()
    if state == "draining":
        client.app[DISPATCHER].drain()
    async with client.get("/health/live") as answer:
        assert (answer.status, await answer.json()) == (200, {"status": "alive"})


@pytest.mark.parametrize(
    ("count", "expected"),
    [(0, "0.0 GB"), (2**30, "1.0 GB"), (85_899_345_920, "80.0 GB")],
)
def test_bytes_are_written_as_people_read_them(count, expected):
    """GB means 2**30 bytes, as on the box of a GPU."""
    assert expected == gigabytes(count)
