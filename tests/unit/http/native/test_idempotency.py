"""``Idempotency-Key`` on POST /generate: the same request is done once."""

import asyncio
import base64
import hashlib
import io
import json
import sqlite3
from contextlib import closing

import pytest
from PIL import Image

from service.access.allowance import Limits
from service.config.credentials import Keys
from service.http.state import ALLOWANCE, DISPATCHER, DURABLE, JOBS, METRICS
from tests.support.job_service import BODY, ask, service, until
from tests.support.simulation.fake_engine import FakeEngine

KEY = {"Idempotency-Key": "order-1"}
SECRET = "0f3a9c5e7b1d2846" * 2


async def generate(client, *, body=BODY, **headers):
    """Ask for an image; return the status, the headers and the bytes."""
    async with client.post("/generate", json=body, headers=KEY | headers) as answer:
        return answer.status, answer.headers, await answer.read()


async def waiting(client, count):
    """Wait until so many requests wait for jobs that are not over."""
    live = client.app[JOBS].live
    async with asyncio.timeout(20):
        while sum(each.clients for each in live.values()) != count:
            async with client.get("/health/live"):
                pass


@pytest.mark.parametrize("kind", ["application/json", "image/png", "image/webp", "image/jpeg"])
async def test_the_same_request_gets_the_same_answer_again(tmp_path, kind):
    """Byte for byte, in every format, and after a restart too; the engine makes it once."""
    async with service(tmp_path) as client:
        status, headers, first = await generate(client, Accept=kind)
        assert (status, headers["Content-Type"].split(";")[0]) == (200, kind)
        assert "Idempotent-Replayed" not in headers
        status, headers, second = await generate(client, Accept=kind)
        assert (status, headers["Idempotent-Replayed"], second) == (200, "true", first)
    engine = FakeEngine()
    async with service(tmp_path, engine) as client:
        _, headers, third = await generate(client, Accept=kind)
        assert (headers["Idempotent-Replayed"], third, engine.steps) == ("true", first, 0)


async def test_one_job_answers_in_every_format(tmp_path):
    """The key stands for the images, not for their format."""
    engine = FakeEngine()
    async with service(tmp_path, engine) as client:
        body = json.loads((await generate(client))[2])
        inside = Image.open(io.BytesIO(base64.b64decode(body["image_base64"]))).tobytes()
        for kind in ("png", "webp"):
            _, headers, file = await generate(client, Accept=f"image/{kind}")
            assert Image.open(io.BytesIO(file)).tobytes() == inside
            assert json.loads(headers["X-Metadata"])["seed"] == 7
        assert engine.steps == BODY["steps"]


async def test_several_images_are_repeated_in_their_order(tmp_path):
    """All of them."""
    async with service(tmp_path) as client:
        _, _, first = await generate(client, body=BODY | {"num_images": 3})
        _, _, second = await generate(client, body=BODY | {"num_images": 3})
        assert first == second
        assert len(json.loads(second)["images_base64"]) == 3


async def test_another_request_with_the_same_key_is_refused(tmp_path):
    """409; the order of the fields makes no other request."""
    async with service(tmp_path) as client:
        assert (await generate(client))[0] == 200
        assert (await generate(client, body=dict(reversed(BODY.items()))))[0] == 200
        status, _, problem = await generate(client, body=BODY | {"seed": 8})
        assert (status, json.loads(problem)["code"]) == (409, "idempotency_conflict")


async def test_a_second_request_joins_the_running_job(tmp_path):
    """Both get the images of one."""
    engine = FakeEngine(step_seconds=None)
    async with service(tmp_path, engine) as client:
        both = [asyncio.create_task(generate(client)) for _ in range(2)]
        await engine.jobs(1)
        await waiting(client, 2)
        await engine.step(2)
        (_, one, first), (_, other, second) = await asyncio.gather(*both)
        assert first == second
        assert ("Idempotent-Replayed" in one) + ("Idempotent-Replayed" in other) == 1
        assert engine.steps == BODY["steps"]


async def test_who_hangs_up_ends_nobody_elses_job(tmp_path):
    """Only the last one takes it along, and who asks again after that gets a new one."""
    engine = FakeEngine(step_seconds=None)
    async with service(tmp_path, engine) as client:
        first, second = (asyncio.create_task(generate(client)) for _ in range(2))
        (job,) = await engine.jobs(1)
        await waiting(client, 2)
        first.cancel()
        await waiting(client, 1)
        assert engine.cancelled == []
        second.cancel()
        await engine.jobs(0)
        assert engine.cancelled == [job]
        again = asyncio.create_task(generate(client))
        assert (await engine.jobs(1)) != (job,)
        await engine.step(2)
        status, headers, _ = await again
        assert (status, "Idempotent-Replayed" in headers) == (200, False)
        assert (await ask(client, "GET", f"/jobs/{job}", 200))["state"] == "cancelled"


@pytest.mark.parametrize("early", [True, False])
async def test_a_job_that_was_hung_up_on_answers_no_order(tmp_path, monkeypatch, early):
    """POST /jobs with its key gets a new one, also while the end is being written down."""
    engine = FakeEngine(step_seconds=None)
    async with service(tmp_path, engine) as client:
        store, gate = client.app[DURABLE].store, asyncio.Event()
        finish = store.finish

        async def slow(*args, **more):
            await gate.wait()
            return await finish(*args, **more)

        monkeypatch.setattr(store, "finish", slow)
        first = asyncio.create_task(generate(client))
        (job,) = await engine.jobs(1)
        first.cancel()
        await engine.jobs(0)
        if not early:
            gate.set()
            await until(client, job, "cancelled")
        order = asyncio.create_task(ask(client, "POST", "/jobs", 202, json=BODY, headers=KEY))
        if early:
            async with client.get("/jobs"):  # By its answer the order waits for that end.
                gate.set()
        again = (await order)["id"]
        assert again != job
        await engine.jobs(1)
        await engine.step(2)
        await until(client, again, "succeeded")
        found = await ask(client, "POST", "/jobs", 200, json=BODY, headers=KEY)
        assert found["id"] == again


async def test_an_order_that_failed_stays_the_answer_to_an_order(tmp_path):
    """Who was told an id is shown what became of it."""
    engine = FakeEngine(step_seconds=None)
    async with service(tmp_path, engine) as client:
        job = (await ask(client, "POST", "/jobs", 202, json=BODY, headers=KEY))["id"]
        await engine.jobs(1)
        engine.fail()
        await until(client, job, "failed")
        found = await ask(client, "POST", "/jobs", 200, json=BODY, headers=KEY)
        assert (found["id"], found["state"]) == (job, "failed")


@pytest.mark.parametrize("promised_first", [True, False])
async def test_a_job_that_was_promised_outlives_those_who_wait_for_it(tmp_path, promised_first):
    """202 is a promise, whoever came first."""
    engine = FakeEngine(step_seconds=None)
    async with service(tmp_path, engine) as client:
        if promised_first:
            job = (await ask(client, "POST", "/jobs", 202, json=BODY, headers=KEY))["id"]
        waits = asyncio.create_task(generate(client))
        await engine.jobs(1)
        await waiting(client, 1)
        if not promised_first:
            job = (await ask(client, "POST", "/jobs", 202, json=BODY, headers=KEY))["id"]
        waits.cancel()
        await waiting(client, 0)
        await engine.step(2)
        assert (await until(client, job, "succeeded"))["id"] == job
        assert (await generate(client))[1]["Idempotent-Replayed"] == "true"


async def test_a_request_that_failed_is_tried_again(tmp_path):
    """An error is no answer to keep: the second try is a new job."""
    engine = FakeEngine(step_seconds=None)
    async with service(tmp_path, engine) as client:
        asked = asyncio.create_task(generate(client))
        await engine.jobs(1)
        engine.fail("out_of_memory", "Too big.")
        assert (await asked)[0] == 503
        again = asyncio.create_task(generate(client))
        await engine.jobs(1)
        await engine.step(2)
        assert (await again)[0] == 200


async def test_a_deadline_is_that_of_the_one_who_waits(tmp_path):
    """408 for the hurried one; the other still gets the images."""
    engine = FakeEngine(step_seconds=None)
    async with service(tmp_path, engine) as client:
        patient = asyncio.create_task(generate(client))
        (job,) = await engine.jobs(1)
        assert (await generate(client, **{"X-Request-Timeout": "0.05"}))[0] == 408
        assert tuple(engine.batch) == (job,)
        await engine.step(2)
        assert (await patient)[0] == 200


async def test_a_deadline_of_the_last_one_ends_the_job(tmp_path):
    """And says why."""
    engine = FakeEngine(step_seconds=None)
    async with service(tmp_path, engine) as client:
        assert (await generate(client, **{"X-Request-Timeout": "0.05"}))[0] == 408
        (job,) = (await ask(client, "GET", "/jobs", 200))["jobs"]
        found = await until(client, job["id"], "failed")
        assert found["error"]["code"] == "timeout"
        assert engine.batch == {}


async def test_a_restart_goes_on_where_it_was_and_the_client_joins_again(tmp_path):
    """A service that stops says 503; the next one runs the job without being asked."""
    engine = FakeEngine(step_seconds=None)
    async with service(tmp_path, engine) as client:
        asked = asyncio.create_task(generate(client))
        await waiting(client, 1)
        client.app[DISPATCHER].give_up()
        assert (await asked)[0] == 503
    async with service(tmp_path) as client:
        status, headers, _ = await generate(client)
        assert (status, headers["Idempotent-Replayed"]) == (200, "true")


async def test_a_repetition_costs_no_images(tmp_path):
    """Even where the first one took the last that were left."""
    settings = {"api_keys": Keys(f"alice:{SECRET}"), "quota_images_per_day": 1}
    async with service(tmp_path, **settings) as client:
        for _ in range(2):
            assert (await generate(client, Authorization=f"Bearer {SECRET}"))[0] == 200
        left = client.app[ALLOWANCE].images_left("alice", Limits(images_per_day=1))
        assert left.remaining == 0
        refused = await ask(
            client, "POST", "/generate", 429, json=BODY, headers={"X-API-Key": SECRET}
        )
        assert refused["code"] == "quota_exceeded"


async def test_a_repetition_without_its_images_is_made_anew(tmp_path):
    """They were removed or damaged: nothing could be repeated, and no answer has failed."""
    async with service(tmp_path) as client:
        first = (await generate(client))[2]
        for file in (tmp_path / "results").glob("*.zip"):
            file.write_bytes(b"damaged")
        status, headers, second = await generate(client)
        assert (status, "Idempotent-Replayed" in headers) == (200, False)
        one, two = (json.loads(answer)["image_base64"] for answer in (first, second))
        same = [Image.open(io.BytesIO(base64.b64decode(text))).tobytes() for text in (one, two)]
        assert same[0] == same[1]
        assert client.app[METRICS].registry.get_sample_value("sd_answers_failed_total") == 0


async def test_without_a_folder_a_key_is_refused():
    """It is not ignored: the client counts on it."""
    async with service("") as client:
        status, _, problem = await generate(client)
        assert status == 503
        said = json.loads(problem)
        assert said["code"] == "jobs_off"
        assert "DATA_DIR" in said["detail"]
        assert "Idempotency-Key" in said["detail"]


@pytest.mark.parametrize("key", ["", "x" * 256])
async def test_a_key_that_cannot_be_one_is_named(tmp_path, key):
    """With its limit."""
    async with service(tmp_path) as client:
        status, _, problem = await generate(client, **{"Idempotency-Key": key})
        assert (status, list(json.loads(problem)["errors"])) == (400, ["Idempotency-Key"])


async def test_a_repetition_after_an_upgrade_gets_its_job(tmp_path):
    """Earlier versions have written down the digest of the body only."""
    async with service(tmp_path) as client:
        job = (await ask(client, "POST", "/jobs", 202, json=BODY, headers=KEY))["id"]
        await until(client, job, "succeeded")
    old = hashlib.sha256(json.dumps(BODY, sort_keys=True).encode()).hexdigest()
    with closing(sqlite3.connect(tmp_path / "jobs.sqlite")) as connection:
        connection.execute("UPDATE jobs SET idempotency_digest = ?", (old,))
        connection.commit()
    async with service(tmp_path) as client:
        assert (await ask(client, "POST", "/jobs", 200, json=BODY, headers=KEY))["id"] == job
        assert (await generate(client))[1]["Idempotent-Replayed"] == "true"
        await ask(client, "POST", "/jobs", 409, json=BODY | {"steps": 3}, headers=KEY)
