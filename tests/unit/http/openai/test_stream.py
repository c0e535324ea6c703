"""POST /v1/images/generations with ``stream``."""

import asyncio
import base64
import io
import json
import math
from typing import Any

import pytest
from PIL import Image

from service.config.credentials import Keys
from service.http import event_stream
from service.http.state import JOBS, METRICS
from tests.support.simulation.fake_engine import FakeEngine

PATH = "/v1/images/generations"
PARTIAL = "image_generation.partial_image"
COMPLETED = "image_generation.completed"
BODY = {"prompt": "a boat", "size": "256x256", "stream": True, "seed": 7, "steps": 8}


def blocks(text: str) -> list[dict[str, str]]:
    """Return the events and comments of a stream; a comment has the name ``""``."""
    parts = [part for part in text.split("\n\n") if part]
    return [dict(line.split(": ", 1) for line in part.splitlines()) for part in parts]


def events(text: str) -> list[dict[str, Any]]:
    """Return the data of the events; the name is in it, too."""
    found = [each for each in blocks(text) if "event" in each]
    told = [json.loads(each["data"]) for each in found]
    assert all(
        each["event"] == data.get("type", "error") for each, data in zip(found, told, strict=True)
    )
    return told


async def watched(client, engine, count=1):
    """Wait until so many jobs are watched with previews."""
    async with asyncio.timeout(20):
        while len(engine.watched) != count:
            async with client.get("/health/live"):
                pass


async def stepped(client, engine, steps):
    """Do steps one by one, and let each be heard."""
    for _ in range(steps):
        await engine.step()
        async with client.get("/health/live"):
            pass


async def streamed(client, **body):
    """Return the whole text of a stream."""
    async with client.post(PATH, json=BODY | body) as answer:
        assert (answer.status, answer.content_type) == (200, "text/event-stream")
        assert answer.headers["X-Accel-Buffering"] == "no"
        return await answer.text()


async def test_a_stream_ends_with_the_finished_image(client):
    """All fields that OpenAI names, the seed, and no more than that."""
    (done,) = events(await streamed(client))
    image = Image.open(io.BytesIO(base64.b64decode(done.pop("b64_json"))))
    assert image.size == (256, 256)
    assert isinstance(done.pop("created_at"), int)
    assert done == {
        "type": COMPLETED,
        "background": "opaque",
        "output_format": "png",
        "quality": "auto",
        "size": "256x256",
        "usage": {
            "input_tokens": 2,
            "input_tokens_details": {"text_tokens": 2, "image_tokens": 0},
            "output_tokens": 256,
            "total_tokens": 258,
        },
        "seed": 7,
        "warnings": [],
    }


@pytest.mark.parametrize("count", [0, 1, 2, 3])
async def test_partial_images_are_spread_over_the_steps(serve, count):
    """No more than were asked for, each in the size and the format of the finished one."""
    engine = FakeEngine(step_seconds=None)
    client = await serve(engine)
    body = BODY | {"partial_images": count, "output_format": "jpeg"}
    async with client.post(PATH, json=body) as answer:
        await engine.jobs(1)
        await watched(client, engine, int(count > 0))
        text, done = b"", 0
        for part in range(1, count + 1):
            due = math.ceil(8 * part / (count + 1))
            await stepped(client, engine, due - done)
            done = due
            text += await answer.content.readuntil(b"\n\n")
        await stepped(client, engine, 8 - done)
        text += await answer.content.read()
    *partial, last = events(text.decode())
    assert [each["partial_image_index"] for each in partial] == list(range(count))
    assert last["type"] == COMPLETED
    brightness = []
    for each in partial:
        assert each.keys() == {
            *("type", "b64_json", "partial_image_index", "background", "created_at"),
            *("output_format", "quality", "size"),
        }
        image = Image.open(io.BytesIO(base64.b64decode(each["b64_json"])))
        assert (each["type"], image.format, image.size) == (PARTIAL, "JPEG", (256, 256))
        brightness.append(sum(image.convert("L").tobytes()))
    assert brightness == sorted(brightness)


@pytest.mark.parametrize("stream", [True, False])
async def test_an_interrupted_first_pass_tells_its_size(serve, stream):
    """The image has that, whatever size was asked for at the end."""
    engine = FakeEngine(step_seconds=None)
    client = await serve(engine)
    body = BODY | {"hires": {"scale": 2}, "stream": stream}
    async with asyncio.timeout(20):
        drawing = asyncio.create_task(client.post(PATH, json=body))
        (job,) = await engine.jobs(1)
        await engine.step()
        engine.interrupt(job)
        answer = await drawing
        text = await answer.text()
    (told,) = events(text) if stream else (json.loads(text),)
    (data,) = [told] if stream else told["data"]
    image = Image.open(io.BytesIO(base64.b64decode(data["b64_json"])))
    assert (image.size, told["size"]) == ((256, 256), "256x256")
    assert told["usage"]["output_tokens"] == 256


async def test_each_of_several_images_is_an_event(client):
    """With a seed of its own; the packages hand both out."""
    told = events(await streamed(client, n=2))
    assert [(each["type"], each["seed"]) for each in told] == [(COMPLETED, 7), (COMPLETED, 8)]


async def test_there_are_no_partial_images_where_a_checker_looks(serve):
    """They would show what it hides; the last event says why there are none."""
    engine = FakeEngine()
    client = await serve(engine, safety_checker=True)
    (done,) = events(await streamed(client, partial_images=3))
    assert done["warnings"][0].startswith("partial_images:")
    assert not engine.watched


async def test_a_request_that_is_refused_is_no_stream(client):
    """Before a job is accepted an error is an answer as without ``stream``."""
    async with client.post(PATH, json=BODY | {"n": 9}) as answer:
        assert (answer.status, answer.content_type) == (400, "application/json")
        assert (await answer.json())["error"]["param"] == "n"


async def test_an_error_in_a_stream_is_an_event(serve):
    """The packages raise it with its message and its code."""
    engine = FakeEngine(step_seconds=None)
    client = await serve(engine)
    streaming = asyncio.create_task(streamed(client))
    await engine.jobs(1)
    engine.fail()
    (told,) = events(await streaming)
    assert told["error"]["code"] == "generation_failed"
    assert told["error"]["type"] == "server_error"


async def test_a_deadline_in_a_stream_is_an_event(serve):
    """And the job ends as one that was too late."""
    engine = FakeEngine(step_seconds=None)
    client = await serve(engine, request_timeout_seconds=2)
    (told,) = events(await streamed(client))
    assert told["error"]["code"] == "timeout"
    assert not engine.batch
    read = client.app[METRICS].registry.get_sample_value
    assert read("sd_jobs_total", {"api": "openai", "outcome": "timed_out", "code": ""}) == 1


async def test_waiting_is_a_comment(serve, queued):
    """The packages would hand out a broken object for an event that they do not know."""
    engine = FakeEngine(step_seconds=None)
    client = await serve(engine, max_concurrent_requests=1)
    first = asyncio.create_task(streamed(client))
    await engine.jobs(1)
    second = asyncio.create_task(streamed(client))
    await queued(client, 1)
    await stepped(client, engine, 8)
    await engine.jobs(1)
    await stepped(client, engine, 8)
    text = (await asyncio.gather(first, second))[1]
    assert text.startswith(": queued, position 1\n\n")
    assert [each["type"] for each in events(text)] == [COMPLETED]


async def test_a_silent_stream_shows_that_it_lives(serve, monkeypatch):
    """By comments, which nobody hands out."""
    monkeypatch.setattr(event_stream, "KEEP_ALIVE_SECONDS", 0.02)
    engine = FakeEngine(step_seconds=None)
    client = await serve(engine)
    async with client.post(PATH, json=BODY) as answer:
        assert await answer.content.readuntil(b"\n\n") == event_stream.KEEP_ALIVE
        await engine.step(8)
        assert events((await answer.content.read()).decode())


async def test_a_client_that_leaves_a_stream_frees_the_engine(serve):
    """As one that waits for its answer does."""
    engine = FakeEngine(step_seconds=None)
    client = await serve(engine)
    async with client.post(PATH, json=BODY | {"partial_images": 3}) as answer:
        assert answer.status == 200
        (job_id,) = await engine.jobs(1)
        answer.close()
    await engine.jobs(0)
    assert engine.cancelled == [job_id]
    assert not client.app[JOBS].live
    async with client.get("/health/live"):
        pass
    read = client.app[METRICS].registry.get_sample_value
    assert read("sd_jobs_total", {"api": "openai", "outcome": "disconnected", "code": ""}) == 1


async def test_a_stream_needs_a_key_where_there_are_keys(serve):
    """The same gateway as without."""
    client = await serve(api_keys=Keys("anna:" + "0123456789abcdef" * 2))
    async with client.post(PATH, json=BODY) as answer:
        assert (answer.status, answer.content_type) == (401, "application/json")


async def test_a_stream_has_no_links(client):
    """OpenAI's events have no field for one."""
    (done,) = events(await streamed(client, response_format="url"))
    assert done["b64_json"]
    assert done["warnings"] == ["response_format: a stream has b64_json only."]
