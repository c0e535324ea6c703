"""The whole service, as its users run it: a real process, the real engine, the demo model."""

import asyncio
import base64
import io
import os
import signal
from typing import Any

import aiohttp
import pytest
from PIL import Image

from tests.support.images.files import opened
from tests.support.jobs.photos import left_half, png
from tests.support.kept import images as kept_images
from tests.support.parity.comparison import difference
from tests.support.service_process import WAIT_SECONDS, ServiceProcess, running_service

Report = dict[str, Any]

SMALL = {"prompt": "A cozy cabin in the woods", "width": 256, "height": 256, "steps": 6, "seed": 1}
LONG = {**SMALL, "width": 512, "height": 512, "steps": 50}


@pytest.fixture(scope="module")
def service():
    """One service for the tests that leave it as they found it."""
    with running_service(MAX_CONCURRENT_REQUESTS=3, QUEUE_SIZE=2) as started:
        yield started


@pytest.fixture
async def client(service):
    """Open a client of the shared service."""
    async with session(service) as opened:
        yield opened


def session(service: ServiceProcess) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(service.url, timeout=aiohttp.ClientTimeout(total=WAIT_SECONDS))


async def generate(client: aiohttp.ClientSession, **fields: object) -> tuple[int, Report]:
    async with client.post("/generate", json={**SMALL, **fields}) as answer:
        return answer.status, await answer.json(content_type=None)


async def health(client: aiohttp.ClientSession) -> Report:
    async with client.get("/health") as answer:
        return dict(await answer.json())


def image(body: Report) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(body["image_base64"])))


async def logged(service: ServiceProcess, event: str, *, count: int = 1) -> Report:
    """Wait for a log line without holding up the event loop."""
    return await asyncio.to_thread(service.logged, event, count=count)


async def test_a_prompt_gives_an_image_of_the_size_asked_for(client):
    """POST /generate answers with a PNG and says what it was made from."""
    status, body = await generate(client, width=320, height=256)
    assert status == 200
    assert image(body).size == (320, 256)
    assert {k: body["metadata"][k] for k in ("prompt", "steps", "width", "height", "seed")} == {
        "prompt": SMALL["prompt"],
        "steps": 6,
        "width": 320,
        "height": 256,
        "seed": 1,
    }


def sent(drawn: Image.Image) -> str:
    file = io.BytesIO()
    drawn.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


async def demand_kept(client: aiohttp.ClientSession, first: Report) -> None:
    """Repaint the middle of an image, and compare the rest with it byte for byte."""
    before, place = image(first), (96, 64, 160, 192)
    mask = Image.new("L", before.size)
    mask.paste("white", place)
    fields = {"image": first["image_base64"], "mask": sent(mask), "mask_blur": 0, "strength": 0.9}
    status, body = await generate(client, prompt="A red boat", **fields)
    assert (status, body["metadata"]["strength"]) == (200, 0.9)
    after = image(body)
    assert after.crop(place).tobytes() != before.crop(place).tobytes()
    for each in (before, after):
        each.paste("black", place)
    assert after.tobytes() == before.tobytes()


async def test_what_a_mask_leaves_out_is_the_input(client):
    """POST /generate takes an answer's image back, and repaints no other part than is asked for."""
    status, first = await generate(client)
    assert status == 200
    await demand_kept(client, first)


@pytest.mark.long
async def test_a_model_for_inpainting(tmp_path):
    """Its UNet takes nine channels; it draws texts, images and masks."""
    from scripts.random_model import folder  # noqa: PLC0415 - the others need no torch
    from scripts.random_model.shapes import SHAPES  # noqa: PLC0415 - as above

    built = folder.build(SHAPES["tiny-sd15-inpaint"], tmp_path / "painter")
    with running_service(MODEL_ID=built, TORCH_THREADS=1) as service:
        async with session(service) as client:
            async with client.get("/models") as answer:
                [model] = (await answer.json())["models"]
            status, first = await generate(client)
            again, second = await generate(client, image=first["image_base64"], strength=0.5)
            assert (model["inpainting"], status, again) == (True, 200, 200)
            before, after = (opened(each["image_base64"]) for each in (first, second))
            assert after.tobytes() != before.tobytes()
            await demand_kept(client, first)


async def test_the_same_request_gives_the_same_image(client):
    """A seed decides the image."""
    (_, first), (_, second) = [await generate(client) for _ in range(2)]
    one, other = opened(first["image_base64"]), opened(second["image_base64"])
    assert one.tobytes() == other.tobytes()


async def test_requests_of_an_earlier_version_give_the_same_images(client):
    """Kept requests, three at a time, give what they gave before models had recipes."""
    places = asyncio.Semaphore(3)

    async def drawn(body: Report) -> list[Any]:
        async with places, client.post("/generate", json=body) as answer:
            assert answer.status == 200, await answer.text()
            return kept_images.images(await answer.json())

    found = await asyncio.gather(*(drawn(each) for each in kept_images.bodies()))
    grids = [kept_images.grid(each) for images in found for each in images]

    for place, (grid, kept) in enumerate(zip(grids, kept_images.kept(), strict=True)):
        assert difference([grid], [kept]).same, f"image {place}: {difference([grid], [kept])}"


async def test_the_answer_says_that_this_is_the_demo_model(client):
    """Nobody takes the demo model for a full one: answers and health name it."""
    _, body = await generate(client)
    report = await health(client)
    assert "demo" in body["metadata"]["model_version"]
    assert report["model"]["demo"] is True


async def test_a_client_that_hangs_up_stops_its_steps(service, client):
    """The engine leaves an abandoned image within a step."""
    before = len([line for line in service.log if line["event"] == "job_started"])
    request = asyncio.create_task(generate(client, **LONG))
    started = await logged(service, "job_started", count=before + 1)
    request.cancel()
    await asyncio.gather(request, return_exceptions=True)
    left = await logged(service, "job_left_batch")
    assert left["job_id"] == started["job_id"]
    assert left["steps_done"] < LONG["steps"]
    assert (await logged(service, "job_ended", count=1)) is not None


async def test_a_full_queue_answers_503_with_a_time_to_come_back(client):
    """Requests beyond batch and queue are refused at once, with Retry-After."""
    requests = [asyncio.create_task(generate(client, **LONG)) for _ in range(8)]
    finished, _ = await asyncio.wait(requests, return_when=asyncio.FIRST_COMPLETED)
    status, body = next(iter(finished)).result()
    async with client.post("/generate", json=SMALL) as refused:
        retry_after = int(refused.headers["Retry-After"])
    for request in requests:
        request.cancel()
    await asyncio.gather(*requests, return_exceptions=True)
    assert (status, body["code"]) == (503, "queue_full")
    assert retry_after >= 1


async def test_a_killed_engine_loses_nothing():
    """The image in work when the engine is killed still arrives, from a new engine."""
    with running_service() as service:
        async with session(service) as client:
            request = asyncio.create_task(generate(client, steps=50))
            await logged(service, "job_started")
            os.kill(service.engine_pid, signal.SIGKILL)
            exited = await logged(service, "engine_exited")
            meanwhile = await health(client)
            status, body = await request
            after = await health(client)
    assert (status, image(body).size) == (200, (256, 256))
    assert body["metadata"]["attempts"] == 2
    assert (exited["exit_code"], exited["restarts"], exited["jobs"]) == (-9, 1, 1)
    assert (meanwhile["status"], meanwhile["model_loaded"]) == ("restarting", False)
    assert (after["status"], after["engine"]["restarts"]) == ("healthy", 1)


async def test_every_line_of_the_log_is_json(service):
    """A log collector can read whatever the service and its engine write."""
    assert service.strays == []


@pytest.mark.long
async def test_a_second_signal_does_not_wait():
    """Who asks twice wants it now: the running request gets 503, and the service ends with 0."""
    with running_service() as service:
        async with session(service) as client:
            request = asyncio.create_task(generate(client, **LONG))
            await logged(service, "job_started")
            service.process.send_signal(signal.SIGTERM)
            await logged(service, "drain_started")
            code = await asyncio.to_thread(service.end)
            status, body = await request
    assert (code, status, body["code"]) == (0, 503, "shutting_down")


async def test_an_engine_does_not_outlive_a_killed_service():
    """After kill -9 of the service its engine leaves by itself."""
    with running_service() as service:
        engine = service.engine_pid
        service.process.kill()
        await asyncio.to_thread(service.process.wait)
        # The pipe of their common output ends when the last of both has left.
        await asyncio.to_thread(service._reader.join, WAIT_SECONDS)
        assert not service._reader.is_alive(), f"engine {engine} is still there"


@pytest.mark.long
async def test_jobs_survive_a_killed_service(tmp_path):
    """Kill -9 with one job in work and two in line: the next service finishes all three.

    Those that begin with an image, too, and what is not repainted is the image.
    """
    photo, mask = (base64.b64encode(each).decode() for each in (png(size=256), left_half(256)))
    more: list[dict[str, Any]] = [{}, {"image": photo}, {"image": photo, "mask": mask}]
    with running_service(DATA_DIR=tmp_path, MAX_CONCURRENT_REQUESTS=1) as service:
        async with session(service) as client:
            jobs = []
            for seed in range(3):
                body = {**SMALL, "seed": seed, **more[seed]}
                async with client.post("/jobs", json=body) as answer:
                    assert answer.status == 202
                    jobs.append((await answer.json())["id"])
            await logged(service, "job_started")
            service.process.kill()
            await asyncio.to_thread(service.process.wait)
    with running_service(DATA_DIR=tmp_path) as service:
        async with session(service) as client:
            for seed, job in enumerate(jobs):
                async with client.get(f"/jobs/{job}/events") as answer:
                    assert "event: finished" in await answer.text()
                async with client.get(f"/jobs/{job}") as answer:
                    found = await answer.json()
                assert (found["state"], found["metadata"]["seed"]) == ("succeeded", seed)
                async with client.get(f"/jobs/{job}/image") as answer:
                    shown = Image.open(io.BytesIO(await answer.read()))
                    assert shown.size == (256, 256)
            # Beyond the blurred edge of its mask.
            assert shown.crop((160, 0, 256, 256)).getcolors() == [(96 * 256, (200, 30, 30))]
            async with client.delete("/jobs") as answer:
                assert await answer.json() == {"removed": 3}
    assert [*(tmp_path / "inputs").iterdir(), *(tmp_path / "results").iterdir()] == []


async def test_sigterm_finishes_what_was_accepted():
    """A stop lets the running image end, answers it, and exits with 0."""
    with running_service() as service:
        async with session(service) as client:
            request = asyncio.create_task(generate(client, steps=30))
            await logged(service, "job_started")
            code = await asyncio.to_thread(service.end)
            status, body = await request
    assert (code, status, image(body).size) == (0, 200, (256, 256))


@pytest.mark.long
async def test_sigterm_does_not_wait_for_ever():
    """What is unfinished when the shutdown time is over is answered with 503."""
    with running_service(SHUTDOWN_TIMEOUT_SECONDS=0.1) as service:
        async with session(service) as client:
            request = asyncio.create_task(generate(client, **LONG))
            await logged(service, "job_started")
            code = await asyncio.to_thread(service.end)
            status, body = await request
    assert (code, status, body["code"]) == (0, 503, "shutting_down")


@pytest.mark.long
async def test_a_deadline_ends_the_request_and_frees_the_engine():
    """A request over its time gets 408, and its steps stop."""
    with running_service(REQUEST_TIMEOUT_SECONDS=0.3) as service:
        async with session(service) as client:
            status, body = await generate(client, **LONG)
            left = await logged(service, "job_left_batch")
    assert (status, body["code"]) == (408, "timeout")
    assert left["steps_done"] < LONG["steps"]
