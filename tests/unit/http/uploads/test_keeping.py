"""Images of jobs in a whole service: on the disk before the 202, and gone with their job."""

import base64
import io

import pytest
from PIL import Image

from service.http.state import INPUTS
from tests.support.job_service import BODY, ask, service, until
from tests.support.jobs.photos import left_half, png
from tests.support.simulation.fake_engine import FakeEngine

SIZE = 256
PHOTO = png(size=SIZE)
TEXT = base64.b64encode(PHOTO).decode()
WITH_IMAGE = {**BODY, "image": TEXT, "strength": 1.0}
MASKED = {
    **WITH_IMAGE,
    "mask": base64.b64encode(left_half(SIZE)).decode(),
    "mask_blur": 0,
}


def kept(folder):
    """Return the files of input images."""
    return sorted(path.name for path in (folder / "inputs").iterdir())


async def test_an_accepted_job_has_its_images_on_the_disk(tmp_path):
    """All of them, when the 202 is there, and byte for byte."""
    async with service(tmp_path, FakeEngine(step_seconds=None)) as client:
        job = (await ask(client, "POST", "/jobs", 202, json=MASKED))["id"]
        assert {f"{job}.image", f"{job}.mask"} <= {*kept(tmp_path)}
        assert (tmp_path / "inputs" / f"{job}.image").read_bytes() == PHOTO


async def test_a_restart_runs_a_job_with_its_images(tmp_path):
    """The result is that of a service which did not end."""
    async with service(tmp_path / "one") as client:
        job = (await ask(client, "POST", "/jobs", 202, json=WITH_IMAGE))["id"]
        await until(client, job, "succeeded")
        async with client.get(f"/jobs/{job}/image") as answer:
            expected = pixels(await answer.read())
    engine = FakeEngine(step_seconds=None)
    async with service(tmp_path / "two", engine) as client:
        job = (await ask(client, "POST", "/jobs", 202, json=WITH_IMAGE))["id"]
        await engine.jobs(1)
    async with service(tmp_path / "two") as client:
        await until(client, job, "succeeded")
        async with client.get(f"/jobs/{job}/image") as answer:
            assert pixels(await answer.read()) == expected


def pixels(data):
    """Return the pixels of an image, whatever its file says of it."""
    return Image.open(io.BytesIO(data)).convert("RGB").tobytes()


@pytest.mark.parametrize("folder", ["with a folder", ""])
async def test_what_is_not_repainted_comes_back_as_it_was(tmp_path, folder):
    """In the answer to ``POST /generate``; and nothing of it stays."""
    async with service(tmp_path if folder else "") as client:
        answer = await ask(client, "POST", "/generate", 200, json=MASKED)
        shown = Image.open(io.BytesIO(base64.b64decode(answer["image_base64"])))
        half = (SIZE // 2, 0, SIZE, SIZE)
        assert shown.crop(half).getcolors() == [(SIZE * SIZE // 2, (200, 30, 30))]
        inputs = client.app[INPUTS]
        while await inputs.sizes() or inputs.receiving_bytes:
            await ask(client, "GET", "/health/live", 200)


async def test_a_finished_job_is_the_image_of_another_which_outlives_it(tmp_path):
    """The bytes are its own: the first job may be removed."""
    engine = FakeEngine(step_seconds=None)
    async with service(tmp_path, engine) as client:
        first = (await ask(client, "POST", "/jobs", 202, json=BODY))["id"]
        await engine.jobs(1)
        await engine.step(2)
        await until(client, first, "succeeded")
        again = {**WITH_IMAGE, "image": {"job": first, "index": 0}}
        second = (await ask(client, "POST", "/jobs", 202, json=again))["id"]
        (tmp_path / "results" / f"{first}.zip").unlink()
        await engine.jobs(1)
        await engine.step(2)
        assert (await until(client, second, "succeeded", "failed"))["state"] == "succeeded"


async def test_a_refused_job_leaves_no_image(tmp_path):
    """Where the queue is full."""
    engine = FakeEngine(step_seconds=None)
    settings = {"max_concurrent_requests": 1, "queue_size": 1}
    async with service(tmp_path, engine, **settings) as client:
        await ask(client, "POST", "/jobs", 202, json=BODY)
        await engine.jobs(1)
        await ask(client, "POST", "/jobs", 202, json=BODY)
        refused = await ask(client, "POST", "/jobs", 503, json=WITH_IMAGE)
        assert refused["code"] == "queue_full"
        while kept(tmp_path):
            await ask(client, "GET", "/health/live", 200)


async def test_removing_all_jobs_removes_their_images(tmp_path):
    """From the disk, before the answer."""
    async with service(tmp_path) as client:
        job = (await ask(client, "POST", "/jobs", 202, json=MASKED))["id"]
        await until(client, job, "succeeded")
        assert kept(tmp_path) == [f"{job}.image", f"{job}.mask"]
        assert await ask(client, "DELETE", "/jobs", 200) == {"removed": 1}
        assert kept(tmp_path) == []
        assert list((tmp_path / "results").iterdir()) == []
        await ask(client, "GET", f"/jobs/{job}", 404)
