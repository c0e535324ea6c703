"""Whether the disk has room for the images of one more job."""

import random
from typing import Any

import pytest

from service.core.events import JobFinished
from service.core.image import RawImage
from service.core.spec import GenerationSpec
from service.errors import StorageFull, StorageUnavailable
from service.http.state import ALLOWANCE, DISPATCHER, DURABLE, JOBS, METRICS
from service.images.encode import files
from service.jobs.durable import live_job
from service.jobs.durable.disk_space import need
from service.jobs.durable.live_job import Durability, Terms
from service.jobs.results.base import KEEP_FREE
from service.jobs.results.files import FileResults
from tests.support.job_service import BODY, ask, service, until
from tests.support.simulation.fake_engine import FakeEngine

KEY = {"Idempotency-Key": "order-1"}
ONE = need(GenerationSpec(prompt=str(BODY["prompt"]), width=256, height=256))


@pytest.fixture
def disk(monkeypatch):
    """Return a function that sets the bytes that the disk has beyond the reserve."""

    def has(count: int) -> None:
        monkeypatch.setattr(FileResults, "free_bytes", KEEP_FREE + count)

    return has


def refused(client, api: str = "native") -> Any:
    labels = {"api": api, "reason": "storage_full"}
    return client.app[METRICS].registry.get_sample_value("sd_requests_refused_total", labels)


@pytest.mark.parametrize(
    ("path", "headers"),
    [("/jobs", {}), ("/jobs", KEY), ("/generate", KEY), ("/generate", {"Prefer": "respond-async"})],
)
async def test_a_job_without_room_for_its_images_is_refused(tmp_path, disk, path, headers):
    """At once, in words, counted, with a time to come back; and it costs no images."""
    async with service(tmp_path, quota_images_per_day=9) as client:
        disk(ONE - 1)
        async with client.post(path, json=BODY, headers=headers) as answer:
            assert (answer.status, answer.headers["Retry-After"]) == (503, "30")
            problem = await answer.json()
        assert problem["code"] == "storage_full"
        assert "may take 0.2 MiB, and the disk has room for 0.2 MiB" in problem["detail"]
        assert "64 MiB stay free" in problem["detail"]
        assert refused(client) == 1
        assert client.app[DISPATCHER].depth == client.app[DISPATCHER].running == 0
        assert not any(used.total(0) for used in client.app[ALLOWANCE]._used.values())
        assert (await ask(client, "GET", "/jobs", 200))["jobs"] == []
        disk(ONE)
        async with client.post(path, json=BODY, headers=headers) as answer:
            assert answer.status in {200, 202}


async def test_a_refused_job_counts_for_the_api_that_it_came_through(tmp_path, disk, monkeypatch):
    """Whichever that is."""
    monkeypatch.setattr(live_job, "APIS", ("native", "sdapi"))
    async with service(tmp_path) as client:
        disk(0)
        spec = GenerationSpec(prompt="a cat", width=256, height=256)
        with pytest.raises(StorageFull):
            await client.app[JOBS].submit(spec, "anna", Durability.PROMISED, Terms(api="sdapi"))
        assert (refused(client, "sdapi"), refused(client)) == (1, 0)


async def test_what_keeps_nothing_needs_no_room(tmp_path, disk):
    """A plain request to ``/generate`` is answered from memory."""
    async with service(tmp_path) as client:
        disk(-KEEP_FREE)
        await ask(client, "POST", "/generate", 200, json=BODY)
        assert refused(client) == 0


async def test_room_is_promised_once(tmp_path, disk):
    """What accepted jobs still have to write is theirs, until they are over."""
    engine = FakeEngine(step_seconds=None)
    async with service(tmp_path, engine) as client:
        disk(2 * ONE)
        first, second = [
            (await ask(client, "POST", "/jobs", 202, json=BODY))["id"] for _ in range(2)
        ]
        await ask(client, "POST", "/jobs", 503, json=BODY)
        await ask(client, "DELETE", f"/jobs/{first}", 200)
        await ask(client, "POST", "/jobs", 202, json=BODY)
        await ask(client, "POST", "/jobs", 503, json=BODY)
        await engine.jobs(2)
        await engine.step(2)
        await until(client, second, "succeeded")


async def test_a_repetition_needs_no_room(tmp_path, disk):
    """The same request with the same key gets what is there."""
    async with service(tmp_path) as client:
        job = (await ask(client, "POST", "/jobs", 202, json=BODY, headers=KEY))["id"]
        await until(client, job, "succeeded")
        disk(0)
        await ask(client, "POST", "/jobs", 200, json=BODY, headers=KEY)


async def test_a_folder_that_cannot_be_asked_refuses(tmp_path):
    """Nothing is accepted whose images could not be kept."""
    async with service(tmp_path) as client:
        (tmp_path / "results").rename(tmp_path / "elsewhere")
        problem = await ask(client, "POST", "/jobs", 503, json=BODY)
        assert problem["code"] == StorageUnavailable.code
        (tmp_path / "elsewhere").rename(tmp_path / "results")
        await ask(client, "POST", "/jobs", 202, json=BODY)


@pytest.mark.parametrize("side", [64, 256, 768])
async def test_noise_needs_no_more_than_is_reckoned(tmp_path, side):
    """Images that cannot be compressed, with the longest prompts, and all that is beside them."""
    chance = random.Random(1)  # noqa: S311 - repeatable, not secret
    request = GenerationSpec(
        prompt="🦊" * 5000, negative_prompt="🦊" * 5000, width=side, height=side, num_images=2
    )
    images = tuple(
        RawImage(width=side, height=side, pixels=chance.randbytes(side * side * 3), seed=n)
        for n in range(2)
    )
    metadata = {
        "prompt": request.prompt,
        "negative_prompt": request.negative_prompt,
        "model_version": "demo-1",
    }
    encoded = files(JobFinished(job_id="a", epoch=1, images=images), request, metadata)
    results = FileResults(tmp_path / "results")
    await results.open()
    assert await results.write("0" * 32, encoded, metadata) <= need(request)


async def test_the_sweep_bounds_jobs_without_images(tmp_path):
    """Once a minute, by the settings."""
    engine = FakeEngine(step_seconds=None)
    async with service(tmp_path, engine, jobs_without_images_max=3) as client:
        for _ in range(5):
            job = (await ask(client, "POST", "/jobs", 202, json=BODY))["id"]
            await ask(client, "DELETE", f"/jobs/{job}", 200)
        await client.app[DURABLE]._sweep_once()
        assert len((await ask(client, "GET", "/jobs", 200))["jobs"]) == 3
