"""Two models in one real service: clients that alternate, and an engine that dies in a load."""

import asyncio
import json
from http import HTTPStatus
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.support.service_process import ServiceProcess, ending

pytestmark = pytest.mark.long

CLIENTS = 4
REQUESTS = 3
"""Of each client."""
SIDE = 64
SECONDS = 60.0
"""For all of them; the demo model is loaded in one to four."""


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """Write a folder of models with one in it, with random weights."""
    from tests.support.models import tiny_models  # noqa: PLC0415 - other tests do without torch

    folder = tmp_path / "served"
    tiny_models.build_sd(folder / "tiny")
    return folder


async def drawn(session: aiohttp.ClientSession, url: str, number: int) -> tuple[int, str]:
    """Ask for one image; return the status and the model that drew it."""
    body = {"prompt": "a boat", "steps": 2, "width": SIDE, "height": SIDE, "seed": number}
    model = {"model": "tiny"} if number % 2 else {}
    async with session.post(f"{url}/generate", json=body | model) as answer:
        said = await answer.json()
        return answer.status, said.get("metadata", said).get("model", "")


async def client(session: aiohttp.ClientSession, url: str, number: int) -> list[tuple[int, str]]:
    """Ask for images of one model and the other in turns."""
    return [await drawn(session, url, number + each) for each in range(REQUESTS)]


async def killed_in_a_load(service: ServiceProcess) -> None:
    """Kill the engine as soon as it reads another model."""
    await asyncio.to_thread(service.logged, "model_load_started")
    await service.kill_engine()


async def test_clients_of_two_models_lose_nothing_when_the_engine_dies_in_a_load(
    tmp_path: Path, models: Path
) -> None:
    """Only one of both fits at a time; every request is drawn by the model that it names."""
    faults = tmp_path / "faults.json"
    faults.write_text(json.dumps({"load_seconds": 1.0}))
    memory = {"HOST_CACHE_GB": 0.001, "MODELS": models, "FAULT_FILE": faults}
    settings: dict[str, Any] = {
        "MIN_SIZE": SIDE,
        "DEFAULT_SIZE": SIDE,
        "TORCH_THREADS": 1,
        **memory,
    }
    with ending(ServiceProcess(**settings, MAX_CONCURRENT_REQUESTS=CLIENTS)) as service:
        await service.ready()
        timeout = aiohttp.ClientTimeout(total=SECONDS)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            clients = [client(session, service.url, each) for each in range(CLIENTS)]
            killed, *found = await asyncio.gather(killed_in_a_load(service), *clients)
        assert killed is None
        for number, answers in enumerate(found):
            names = ["tiny" if (number + each) % 2 else "demo" for each in range(REQUESTS)]
            assert answers == [(HTTPStatus.OK, name) for name in names]
        assert len(service.lines("engine_started")) == 2
        assert service.lines("model_unloaded", reason="memory")
        assert await service.figure("sd_engine_restarts_total") == 1
