"""``progress``, ``interrupt`` and ``skip``: the caller's own job, and nobody else's."""

import asyncio
import base64
import io

import pytest
from PIL import Image

from service.config.addresses import Networks
from service.http.sdapi.tasks import TASKS
from tests.support.simulation.fake_engine import FakeEngine
from tests.unit.http.sdapi.asking import ALICE, BOB, KEYS, ask, basic, draw, info


@pytest.fixture
def engine() -> FakeEngine:
    """Return an engine whose steps the test decides."""
    return FakeEngine(step_seconds=None)


def drawing(client, headers=None, **fields):
    return asyncio.create_task(draw(client, headers=headers, **fields))


async def test_a_caller_without_a_job_has_no_progress(client):
    """As SillyTavern waits for it."""
    found = await ask(client, "GET", "progress")
    assert (found["progress"], found["state"]["job_count"]) == (0.0, 0)
    assert found["current_image"] is None


async def test_progress_is_that_of_the_job_with_its_image(serve, engine):
    """The first question makes the engine show it."""
    client = await serve(engine)
    request = drawing(client, steps=4, force_task_id="task(1)")
    (job,) = await engine.jobs(1)
    found = await ask(client, "GET", "progress")
    assert (found["progress"], found["current_image"]) == (0.01, None)
    while engine.watched != {job}:
        await ask(client, "GET", "progress?skip_current_image=true")
    await engine.step(2)
    while (found := await ask(client, "GET", "progress"))["current_image"] is None:
        pass
    assert found["progress"] == 0.5
    assert found["state"]["job"] == "task(1)"
    assert (found["state"]["job_count"], found["state"]["sampling_step"]) == (1, 2)
    image = Image.open(io.BytesIO(base64.b64decode(found["current_image"])))
    assert image.size == (32, 32)
    await engine.step(2)
    await request
    assert engine.watched == set()
    assert (await ask(client, "GET", "progress"))["state"]["job_count"] == 0
    assert client.app[TASKS].of("127.0.0.1") == []


@pytest.mark.parametrize("settings", [{}, {"safety_checker": True}])
async def test_nobody_makes_previews_that_nobody_may_see(serve, engine, settings):
    """Nor where they are not asked for, nor with a safety checker."""
    client = await serve(engine, **settings)
    request = drawing(client)
    await engine.jobs(1)
    query = "" if settings else "?skip_current_image=True"
    await engine.step()
    found = await ask(client, "GET", f"progress{query}")
    assert (found["current_image"], engine.watched) == (None, set())
    await engine.step()
    await request


async def test_an_interrupted_request_is_answered_with_its_unfinished_images(serve, engine):
    """Status 200, and ``info`` says so."""
    client = await serve(engine)
    request = drawing(client, steps=9, batch_size=2)
    await engine.jobs(1)
    await engine.step(3)
    assert await ask(client, "POST", "interrupt") == {}
    answer = await request
    assert len(answer["images"]) == 2
    assert info(answer)["warnings"] == ["images: unfinished, interrupted after 3 of 9 steps."]


async def test_skip_ends_a_job_early_too(serve, engine):
    """The images of a job are drawn together."""
    client = await serve(engine)
    request = drawing(client, steps=9)
    await engine.jobs(1)
    await engine.step()
    assert await ask(client, "POST", "skip") is None
    assert len((await request)["images"]) == 1


async def test_a_request_that_waits_is_answered_without_images(serve, engine, queued):
    """When its caller interrupts it; there is nothing to show."""
    client = await serve(engine, api_keys=KEYS, max_concurrent_requests=1)
    first = drawing(client, basic(BOB))
    await engine.jobs(1)
    second = drawing(client, basic(ALICE))
    await queued(client, 1)
    found = await ask(client, "GET", "progress", headers=basic(ALICE))
    assert (found["progress"], found["textinfo"]) == (0.01, "Place 1 in the queue")
    await ask(client, "POST", "interrupt", headers=basic(ALICE))
    answer = await second
    assert answer["images"] == []
    assert info(answer)["warnings"] == ["images: none, the job was interrupted while it waited."]
    assert engine.interrupted == []
    await engine.step(2)
    assert len((await first)["images"]) == 1


async def test_nobody_sees_or_ends_the_job_of_another(serve, engine):
    """With keys it is the key that counts."""
    client = await serve(engine, api_keys=KEYS)
    request = drawing(client, basic(ALICE))
    await engine.jobs(1)
    await engine.step()
    for path in ("interrupt", "skip"):
        await ask(client, "POST", path, headers=basic(BOB))
    assert (await ask(client, "GET", "progress", headers=basic(BOB)))["progress"] == 0
    assert (await ask(client, "GET", "progress", headers=basic(ALICE)))["progress"] == 0.5
    assert engine.interrupted == []
    await engine.step()
    assert info(await request)["warnings"] == []


async def test_without_keys_the_address_and_the_task_count(serve, engine):
    """Two programs behind one address tell their requests apart by ``force_task_id``."""
    client = await serve(engine, trusted_proxies=Networks("127.0.0.1"))
    here, there = ({"X-Forwarded-For": address} for address in ("10.0.0.1", "10.0.0.2"))
    mine = drawing(client, here, force_task_id="a")
    (first,) = await engine.jobs(1)
    other = drawing(client, here, force_task_id="b")
    second = (await engine.jobs(2))[1]
    await engine.step()
    await ask(client, "POST", "interrupt", headers=there)
    await ask(client, "POST", "interrupt?force_task_id=c", headers=here)
    assert engine.interrupted == []
    await ask(client, "POST", "interrupt?force_task_id=b", headers=here)
    assert engine.interrupted == [second]
    await ask(client, "POST", "interrupt", headers=here)
    assert engine.interrupted == [second, first]
    await asyncio.gather(mine, other)


async def test_a_job_that_its_owner_cancels_is_no_success(serve, engine):
    """By the native API: there is no image, and no interrupt."""
    client = await serve(engine)
    request = asyncio.create_task(draw(client, 409))
    (job,) = await engine.jobs(1)
    async with client.delete(f"/jobs/{job}"):
        pass
    assert "cancelled" in (await request)["error"]


async def test_a_client_that_hangs_up_ends_its_job(serve, engine):
    """And leaves no task behind."""
    client = await serve(engine)
    request = drawing(client)
    (job,) = await engine.jobs(1)
    request.cancel()
    await engine.jobs(0)
    assert engine.cancelled == [job]
    while client.app[TASKS].of("127.0.0.1"):
        await ask(client, "GET", "progress")
