"""POST /generate."""

import asyncio
import base64
import io
import json
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from service.core.spec import GenerationSpec
from service.http import finished
from service.http.middleware import deadline
from service.http.state import HASHES, METRICS
from service.images import encode as encoding
from service.system import executors
from tests.support.simulation.fake_engine import FakeEngine, gradient

BODY: dict[str, Any] = {"prompt": "a boat", "width": 320, "height": 256, "steps": 3, "seed": 42}
PNG = {"Accept": "image/png"}


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def outcomes(client) -> dict[str, float]:
    (family,) = [f for f in client.app[METRICS].registry.collect() if f.name == "sd_jobs"]
    return {
        s.labels["outcome"]: s.value
        for s in family.samples
        if s.name.endswith("_total") and s.value
    }


async def test_the_answer_holds_the_image_and_what_it_was_made_from(client):
    """The contract: a PNG in base64, and the metadata."""
    async with client.post("/generate", json=BODY, headers={"X-Request-ID": "mine"}) as answer:
        assert (answer.status, answer.content_type) == (200, "application/json")
        body = await answer.json()
    image = opened(base64.b64decode(body["image_base64"], validate=True))
    request = GenerationSpec(**BODY)
    assert gradient(request, 42).pixels == image.tobytes()
    metadata = body["metadata"]
    assert metadata.pop("generation_time_seconds") >= 0
    assert metadata.pop("queue_seconds") >= 0
    assert metadata.pop("model_hash") in {"", client.app[HASHES].known("")[:10]}
    expected = {
        **BODY,
        "negative_prompt": "",
        "guidance_scale": 7.5,
        "sampler": "dpmpp_2m",
        "schedule": "automatic",
        "num_images": 1,
        "guidance_rescale": 0.0,
        "clip_skip": 1,
        "eta": 0.0,
        "model": "fake",
        "recipe": "",
        "vae": "",
        "warnings": [],
        "adapters": [],
        "prompt_syntax": "plain",
        "long_prompts": "cut",
        "seeds": [42],
        "image_width": 320,
        "image_height": 256,
        "model_version": "fake-1",
        "attempts": 1,
        "prompt_truncated": False,
        "prompt_tokens": 2,
        "prompt_tokens_cut": 0,
        "adapter_hashes": {},
        "embeddings": {},
        "interrupted": False,
        "steps_done": 3,
        "unsafe": [False],
        "request_id": "mine",
    }
    assert expected == metadata
    assert body.keys() == {"image_base64", "metadata"}


async def test_the_answer_has_the_hash_of_the_model_once_it_is_known(client):
    """The first job has it read, which delays no image."""
    async with client.post("/generate", json=BODY) as answer:
        assert answer.status == 200
    # One model is read at a time: who comes next comes after it.
    await asyncio.wrap_future(executors.HASHES.submit("", "", lambda: None))
    async with client.post("/generate", json=BODY) as answer:
        body = await answer.json()
    known = client.app[HASHES].known("")[:10]
    assert body["metadata"]["model_hash"] == known != ""
    text = opened(base64.b64decode(body["image_base64"])).info["parameters"]
    assert f"Model hash: {known}, Model: fake-1" in text


async def test_a_random_seed_is_answered_and_gives_the_same_image_again(client):
    """Whoever likes an image can ask for it again."""
    unseeded = {name: value for name, value in BODY.items() if name != "seed"}
    async with client.post("/generate", json=unseeded) as answer:
        first = await answer.json()
    again = {**unseeded, "seed": first["metadata"]["seed"]}
    async with client.post("/generate", json=again) as answer:
        second = await answer.json()
    one, other = (opened(base64.b64decode(b["image_base64"])).tobytes() for b in (first, second))
    assert one == other


async def test_several_images_come_in_the_order_of_their_seeds(client):
    """The first one is also where clients of one image look."""
    async with client.post("/generate", json={**BODY, "num_images": 3}) as answer:
        body = await answer.json()
    assert body["metadata"]["seeds"] == [42, 43, 44]
    assert body["image_base64"] == body["images_base64"][0]
    request = GenerationSpec(**BODY)
    expected = [gradient(request, seed).pixels for seed in (42, 43, 44)]
    assert expected == [opened(base64.b64decode(p)).tobytes() for p in body["images_base64"]]


async def test_the_file_itself_can_be_asked_for(client):
    """Accept: image/png gives the bytes, and the metadata in a header and in the file."""
    async with client.post("/generate", json=BODY, headers=PNG) as answer:
        assert (
            answer.status,
            answer.content_type,
            answer.headers["Vary"],
        ) == (200, "image/png", "Accept")
        short = json.loads(answer.headers["X-Metadata"])
        image = opened(await answer.read())
    full = json.loads(image.info["metadata"])
    assert full == {**short, "prompt": "a boat", "negative_prompt": ""}


async def test_the_longest_prompts_fit_into_every_header_limit(client):
    """Prompts stay out of the header, where 8 kB is the common limit."""
    prompts = {"prompt": "\U0001f6a2" * 500, "negative_prompt": "\U0001f6a2" * 500}
    async with client.post("/generate", json={**BODY, **prompts}, headers=PNG) as answer:
        assert answer.status == 200
        assert len(answer.headers["X-Metadata"]) < 1024
        image = opened(await answer.read())
    assert prompts["prompt"] == json.loads(image.info["metadata"])["prompt"]


@pytest.mark.parametrize(
    "accept",
    ["image/png", "image/*", "image/png, application/json;q=0", "image/jpg, text/html;q=0.5"],
)
async def test_one_file_holds_one_image(client, accept):
    """An image and no JSON with several images is a validation error of num_images."""
    headers = {"Accept": accept}
    async with client.post("/generate", json={**BODY, "num_images": 2}, headers=headers) as answer:
        problem = await answer.json(content_type=None)
    assert (answer.status, list(problem["errors"])) == (400, ["num_images"])
    assert "application/json" in problem["detail"]


@pytest.mark.parametrize(
    "accept",
    [
        "image/png, application/json;q=0.5",
        "image/*, */*;q=0.1",
        "image/webp, application/*;q=0.001",
        "image/png;q=1.0, *;q=.2",
    ],
)
async def test_several_images_come_as_json_where_that_is_accepted(client, accept):
    """However little the client likes it; one image comes as it likes best."""
    headers = {"Accept": accept}
    for count, kind in ((2, "application/json"), (1, accept.partition(",")[0][:6])):
        sent = {**BODY, "num_images": count}
        async with client.post("/generate", json=sent, headers=headers) as answer:
            assert answer.status == 200
            assert answer.content_type.startswith(kind)
            assert answer.headers["Vary"] == "Accept"


@pytest.mark.parametrize("accept", ["image/jpg", "IMAGE/JPEG", "image/jpg;q=0.9, text/html"])
async def test_a_jpeg_may_be_called_jpg(client, accept):
    """The answer has the registered name."""
    async with client.post("/generate", json=BODY, headers={"Accept": accept}) as answer:
        assert (answer.status, answer.content_type) == (200, "image/jpeg")
        assert opened(await answer.read()).format == "JPEG"


async def test_a_seed_of_minus_one_is_drawn_and_answered(client):
    """The answer says which seeds were used; null is the same."""
    for given in (-1, None):
        sent = {**BODY, "seed": given, "num_images": 2}
        async with client.post("/generate", json=sent) as answer:
            metadata = (await answer.json())["metadata"]
        assert metadata["seed"] >= 0
        assert metadata["seeds"] == [metadata["seed"], (metadata["seed"] + 1) % 2**32]


async def test_a_prompt_that_the_model_cannot_read_to_its_end_is_reported(client):
    """Words are not dropped silently."""
    async with client.post("/generate", json={**BODY, "prompt": "boat " * 80}) as answer:
        metadata = (await answer.json())["metadata"]
    assert (metadata["prompt_truncated"], metadata["prompt_tokens_cut"]) == (True, 5)


async def test_encoding_runs_on_a_thread_and_is_measured(client, monkeypatch):
    """15 ms of PNG on the event loop would hold up every other answer."""
    threads = []
    encode = encoding.file

    def watched(*arguments, **more):
        threads.append(threading.current_thread())
        return encode(*arguments, **more)

    monkeypatch.setattr(finished, "file", watched)
    async with client.post("/generate", json=BODY) as answer:
        assert answer.status == 200
    assert threads != [threading.main_thread()]
    count = "sd_stage_duration_seconds_count"
    labels = {"engine": "0", "stage": "image_encode"}
    assert client.app[METRICS].registry.get_sample_value(count, labels) == 1


async def test_a_request_joins_the_batch_that_runs(serve):
    """A short request does not wait for the end of a long one."""
    engine = FakeEngine(step_seconds=None)
    client = await serve(engine)
    long = asyncio.create_task(client.post("/generate", json={**BODY, "steps": 50}))
    await engine.jobs(1)
    await engine.step(10)
    short = asyncio.create_task(client.post("/generate", json={**BODY, "steps": 1}))
    await engine.jobs(2)
    await engine.step()
    assert (await short).status == 200
    assert not long.done()
    await engine.step(39)
    assert (await long).status == 200


async def test_a_client_that_hangs_up_frees_the_gpu(serve):
    """Its job leaves the batch before the next step."""
    engine = FakeEngine(step_seconds=None)
    client = await serve(engine)
    asked = asyncio.create_task(client.post("/generate", json=BODY))
    (job_id,) = await engine.jobs(1)
    asked.cancel()
    await engine.jobs(0)
    assert ([job_id], 0) == (engine.cancelled, engine.steps)
    assert outcomes(client) == {"disconnected": 1}


async def test_a_client_that_hangs_up_in_the_queue_never_reaches_the_gpu(serve, queued):
    """Abandoned work is dropped while it waits."""
    engine = FakeEngine(step_seconds=None)
    client = await serve(engine, max_concurrent_requests=1)
    first = asyncio.create_task(client.post("/generate", json=BODY))
    await engine.jobs(1)
    second = asyncio.create_task(client.post("/generate", json=BODY))
    third = asyncio.create_task(client.post("/generate", json={**BODY, "steps": 1}))
    await queued(client, 2)
    second.cancel()
    await queued(client, 1)
    await engine.step(3)
    assert (await first).status == 200
    await engine.jobs(1)
    await engine.step(1)
    assert (await third).status == 200
    assert outcomes(client) == {"succeeded": 2, "disconnected": 1}


async def test_a_late_request_frees_the_gpu(serve, monkeypatch):
    """408, and the job leaves the batch as timed out."""
    deadlines = []

    def timeout(seconds: float) -> asyncio.Timeout:
        deadlines.append(asyncio.timeout(seconds))
        return deadlines[-1]

    monkeypatch.setattr(deadline, "asyncio", SimpleNamespace(timeout=timeout))
    engine = FakeEngine(step_seconds=None)
    client = await serve(engine)
    asked = asyncio.create_task(client.post("/generate", json=BODY))
    (job_id,) = await engine.jobs(1)
    deadlines[0].reschedule(asyncio.get_running_loop().time())
    assert (await asked).status == 408
    assert ([job_id], 0) == (engine.cancelled, len(engine.batch))
    assert outcomes(client) == {"timed_out": 1}


async def test_a_crash_of_the_engine_costs_time_and_not_the_request(serve):
    """The job runs again in the new engine, and the answer says so."""
    engine = FakeEngine(step_seconds=None)
    client = await serve(engine)
    asked = asyncio.create_task(client.post("/generate", json=BODY))
    await engine.jobs(1)
    await engine.step(2)
    engine.crash()
    await engine.jobs(1)
    await engine.step(3)
    async with await asked as answer:
        assert (answer.status, (await answer.json())["metadata"]["attempts"]) == (200, 2)


async def test_requests_wait_while_the_model_loads(serve, queued):
    """A service that just started accepts work before it can do it."""
    engine = FakeEngine(loads=False)
    client = await serve(engine)
    asked = asyncio.create_task(client.post("/generate", json=BODY))
    await queued(client, 1)
    engine.become_ready()
    assert (await asked).status == 200


@pytest.mark.parametrize("sampler", ["ddim", "euler_a", "unipc"])
async def test_the_sampler_reaches_the_engine(serve, sampler):
    """Each request has its own."""
    engine = FakeEngine(step_seconds=None)
    client = await serve(engine)
    asked = asyncio.create_task(client.post("/generate", json={**BODY, "sampler": sampler}))
    (job_id,) = await engine.jobs(1)
    assert engine.batch[job_id] == GenerationSpec(**BODY, sampler=sampler)
    await engine.step(3)
    assert (await asked).status == 200


async def test_an_answer_that_fails_after_its_job_is_counted(client, monkeypatch):
    """The job has succeeded; the caller has nothing, and an objective must know."""

    def broken(*_args, **_more):
        raise RuntimeError("no PNG today")

    monkeypatch.setattr(finished, "file", broken)
    async with client.post("/generate", json={"prompt": "a cat", "steps": 1}) as answer:
        assert answer.status == 500
    registry = client.app[METRICS].registry
    assert registry.get_sample_value("sd_answers_failed_total") == 1
