"""``GET /jobs/{id}/events?preview=true``: the image in the making."""

import asyncio
import base64
import io
import json

import pytest
from PIL import Image

from service.core.spec import GenerationSpec
from service.http.state import JOBS
from tests.support.job_service import BODY, ask, events, service, until
from tests.support.simulation.fake_engine import FakeEngine, preview

REQUEST = GenerationSpec(prompt="a cat", width=256, height=256, steps=3, seed=7)


async def watched(client, engine, count=1):
    """Wait until so many jobs are watched with previews."""
    async with asyncio.timeout(20):
        while len(engine.watched) != count:
            async with client.get("/health/live"):
                pass


async def viewed(client, job, count):
    """Wait until so many streams of a job show previews."""
    async with asyncio.timeout(20):
        while client.app[JOBS].live[job].events.viewers != count:
            async with client.get("/health/live"):
                pass


async def begun(client, engine, steps=3):
    """Hand in a job, and return its id when it is in the engine."""
    job = (await ask(client, "POST", "/jobs", 202, json=BODY | {"steps": steps}))["id"]
    await engine.jobs(1)
    return job


async def next_event(lines, kind):
    """Read up to the next event of a kind; return its data and its id."""
    async with asyncio.timeout(20):
        block: dict[str, str] = {}
        async for line in lines:
            name, _, value = line.decode().rstrip("\n").partition(": ")
            if name:
                block[name] = value
            elif block.get("event") == kind:
                return json.loads(block["data"]), block["id"]
            else:
                block = {}
    raise AssertionError("The stream ended.")


async def test_who_asks_for_previews_sees_the_image_in_the_making(tmp_path):
    """A JPEG after a step, with its size and the step; who does not ask gets none."""
    engine = FakeEngine(step_seconds=None)
    async with service(tmp_path, engine) as client:
        job = await begun(client, engine)
        seeing = asyncio.create_task(events(client, job, query="?preview=true"))
        plain = asyncio.create_task(events(client, job, query="?preview=false"))
        await watched(client, engine)
        for _ in range(3):
            await engine.step()
            async with client.get("/health/live"):
                pass
        told = [json.loads(e["data"]) for e in await seeing if e["event"] == "preview"]
        assert told
        for data in told:
            assert (data["steps"], data["media_type"]) == (3, "image/jpeg")
            image = Image.open(io.BytesIO(base64.b64decode(data["image_base64"])))
            assert (image.format, image.size) == ("JPEG", (data["width"], data["height"]))
            assert image.size == (REQUEST.width // 8, REQUEST.height // 8)
            shown = preview(job, REQUEST, data["step"])
            expected = Image.frombytes("RGB", image.size, shown.pixels).convert("L")
            apart = [
                abs(a - b)
                for a, b in zip(image.convert("L").tobytes(), expected.tobytes(), strict=True)
            ]
            assert sum(apart) / len(apart) < 8
        assert "preview" not in {e["event"] for e in await plain}
        assert engine.watched == set()


async def test_the_engine_makes_previews_only_while_somebody_watches(tmp_path):
    """A stream that ends takes the wish with it, and the newest preview too."""
    engine = FakeEngine(step_seconds=None)
    async with service(tmp_path, engine) as client:
        job = await begun(client, engine)
        async with client.get(f"/jobs/{job}/events?preview=true") as stream:
            await watched(client, engine)
            await engine.step()
            data, _ = await next_event(stream.content, "preview")
            assert data["step"] == 1
            stream.close()
        await watched(client, engine, 0)
        log = client.app[JOBS].live[job].events
        assert "preview" not in log._events
        await engine.step(2)
        await until(client, job, "succeeded")


async def test_a_lost_line_goes_on_with_previews(tmp_path):
    """Last-Event-ID: what was seen is not sent again, and of several previews the newest is."""
    engine = FakeEngine(step_seconds=None)
    async with service(tmp_path, engine) as client:
        job = await begun(client, engine, steps=5)
        second = asyncio.create_task(events(client, job, query="?preview=true"))
        async with client.get(f"/jobs/{job}/events?preview=true") as stream:
            await viewed(client, job, 2)  # Or nobody watches when this stream closes.
            await engine.step()
            _, seen = await next_event(stream.content, "preview")
            stream.close()
        await viewed(client, job, 1)
        await engine.step(2)
        headers = {"Last-Event-ID": seen}
        async with client.get(f"/jobs/{job}/events?preview=true", headers=headers) as stream:
            data, _ = await next_event(stream.content, "preview")
            assert data["step"] == 3
            await engine.step(2)
            assert b"event: finished" in await stream.content.read()
        await second


async def test_previews_go_on_after_the_engine_was_restarted(tmp_path):
    """The new process is told who is watched."""
    engine = FakeEngine(step_seconds=None)
    async with service(tmp_path, engine) as client:
        job = await begun(client, engine)
        async with client.get(f"/jobs/{job}/events?preview=true") as stream:
            await watched(client, engine)
            engine.crash()
            assert engine.watched == set()
            await engine.jobs(1)
            assert engine.watched == {job}
            await engine.step()
            assert (await next_event(stream.content, "preview"))[0]["step"] == 1


async def test_progress_is_that_of_steps_and_not_of_previews(tmp_path):
    """The job itself can still be shown."""
    engine = FakeEngine(step_seconds=None)
    async with service(tmp_path, engine) as client:
        job = await begun(client, engine)
        async with client.get(f"/jobs/{job}/events?preview=true") as stream:
            await watched(client, engine)
            await engine.step()
            await next_event(stream.content, "preview")
            found = await ask(client, "GET", f"/jobs/{job}", 200)
            assert found["progress"].keys() == {"step", "steps", "eta_seconds"}


@pytest.mark.parametrize("value", ["", "1", "yes", "True"])
async def test_a_wrong_wish_is_named(tmp_path, value):
    """With what it may be."""
    engine = FakeEngine(step_seconds=None)
    async with service(tmp_path, engine) as client:
        job = await begun(client, engine)
        problem = await ask(client, "GET", f"/jobs/{job}/events?preview={value}", 400)
        assert problem["errors"] == {"preview": ["must be true or false"]}


async def test_a_service_with_a_safety_checker_shows_no_previews(tmp_path):
    """And says so, rather than sending none."""
    engine = FakeEngine(step_seconds=None)
    async with service(tmp_path, engine, safety_checker=True) as client:
        job = await begun(client, engine)
        problem = await ask(client, "GET", f"/jobs/{job}/events?preview=true", 400)
        assert "SAFETY_CHECKER" in problem["errors"]["preview"][0]
