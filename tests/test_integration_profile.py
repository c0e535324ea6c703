"""PROFILE=6gb under the real service and the real engine, which computes on a CPU here."""

import asyncio

import aiohttp
import pytest

from tests.support.service_process import WAIT_SECONDS, running_service

pytestmark = pytest.mark.long

LARGE = {"prompt": "a boat", "width": 640, "height": 256, "steps": 1, "seed": 1}


async def test_a_small_card_is_measured_before_the_first_request():
    """The batch is calibrated, shown and never beyond its bound; large images come in tiles."""
    with running_service(
        PROFILE="6gb", MAX_CONCURRENT_REQUESTS=2, TORCH_THREADS=1, MIN_SIZE=64, DEFAULT_SIZE=128
    ) as service:
        line = await asyncio.to_thread(service.logged, "batch_calibrated")
        timeout = aiohttp.ClientTimeout(total=WAIT_SECONDS)
        async with aiohttp.ClientSession(service.url, timeout=timeout) as client:
            async with client.get("/metrics") as answer:
                shown = dict(
                    row.split(" ") for row in (await answer.text()).splitlines() if row[0] != "#"
                )
            async with client.post("/generate", json=LARGE) as answer:
                assert answer.status == 200
    assert line["batch"] in {1, 2}
    assert set(line["step_seconds"]) == {"1", "2"}
    assert float(shown['sd_batch_calibrated{engine="0"}']) == line["batch"]
    assert float(shown['sd_batch_limit{engine="0"}']) == 2
