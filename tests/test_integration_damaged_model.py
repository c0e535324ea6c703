"""A model whose files are damaged, under the real service and the real engine."""

import asyncio
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.support.service_process import WAIT_SECONDS, ServiceProcess, ending, running_service

pytestmark = pytest.mark.long

DEMO = Path(__file__).parents[1] / "service" / "demo"
IMAGE = {"prompt": "a boat", "width": 256, "height": 256, "steps": 6, "seed": 1}


class Copy:
    """A copy of the demo model, whose weights can be cut short and made whole again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.copytree(DEMO, folder)
        (self._weights,) = (folder / "unet").glob("*.safetensors")
        self._whole = self._weights.read_bytes()

    def cut(self) -> None:
        with self._weights.open("r+b") as file:
            file.truncate(len(self._whole) // 2)

    def repair(self) -> None:
        with self._weights.open("r+b") as file:
            file.write(self._whole)


@pytest.fixture
def model(tmp_path) -> Copy:
    """Copy the demo model."""
    return Copy(tmp_path / "model")


@pytest.fixture
def settings(model, tmp_path) -> dict[str, Any]:
    """Return the settings of a service that uses the copy."""
    return {"MODEL_ID": model.folder, "DATA_DIR": tmp_path / "data", "TORCH_THREADS": 1}


def session(service: ServiceProcess) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(service.url, timeout=aiohttp.ClientTimeout(total=WAIT_SECONDS))


async def accepted(client: aiohttp.ClientSession, **fields: object) -> str:
    async with client.post("/jobs", json=IMAGE | fields) as answer:
        assert answer.status == 202
        return str((await answer.json())["id"])


async def finished(client: aiohttp.ClientSession, job: str) -> str:
    """Follow a job to its end; return its state."""
    async with client.get(f"/jobs/{job}/events") as answer:
        await answer.read()
    async with client.get(f"/jobs/{job}") as answer:
        return str((await answer.json())["state"])


async def refusal(client: aiohttp.ClientSession) -> str:
    async with client.post("/generate", json=IMAGE) as answer:
        assert answer.status == 503
        return str((await answer.json(content_type=None))["code"])


async def failure(client: aiohttp.ClientSession) -> str:
    async with client.get("/health") as answer:
        report = await answer.json()
    assert report["status"] == "degraded"
    return str(report["engine"]["failure"])


async def test_weights_cut_short_before_a_start_are_told_and_jobs_wait(model, settings):
    """The cure is in the answer, and a start with whole weights runs what was accepted."""
    with running_service(**settings) as service:
        async with session(service) as client:
            job = await accepted(client, width=512, height=512, steps=50)
            await asyncio.to_thread(service.logged, "job_started")
            service.process.kill()
            await asyncio.to_thread(service.process.wait)
    model.cut()
    with ending(ServiceProcess(**settings)) as service:
        failed = await asyncio.to_thread(service.logged, "model_load_failed")
        assert failed["kept"] == 1
        async with session(service) as client:
            assert "Copy it again from where the folder came from" in await failure(client)
            assert await refusal(client) == "model_unavailable"
        assert await asyncio.to_thread(service.end) == 0
    model.repair()
    with running_service(**settings) as service:
        async with session(service) as client:
            assert await finished(client, job) == "succeeded"


async def test_weights_cut_short_while_it_runs_open_the_circuit_until_they_are_whole(
    model, settings
):
    """The engine cannot be started again; the service lives, keeps its jobs and goes on."""
    with running_service(**settings) as service:
        async with session(service) as client:
            model.cut()
            os.kill(service.engine_pid, signal.SIGKILL)
            await asyncio.to_thread(service.logged, "model_reload_failed")
            job = await accepted(client)
            await asyncio.to_thread(service.logged, "circuit_opened")
            assert await refusal(client) == "engine_unavailable"
            assert "Copy it again from where the folder came from" in await failure(client)
            model.repair()
            assert await finished(client, job) == "succeeded"
            async with client.get("/health/ready") as answer:
                assert answer.status == 200
