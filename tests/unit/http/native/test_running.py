"""A request to ``/generate`` while it runs: a job like any other, of which nothing is kept."""

import asyncio
import json

import pytest

from service.config.credentials import Keys
from service.http.state import JOBS
from tests.support.job_service import BODY, ask, events, service
from tests.support.simulation.fake_engine import FakeEngine

KEYS = "alice:" + "0f3a9c5e7b1d2846" * 2 + ",bob:" + "8d1e6f0a4c7b3952" * 2
ALICE = {"Authorization": "Bearer " + "0f3a9c5e7b1d2846" * 2}
BOB = {"Authorization": "Bearer " + "8d1e6f0a4c7b3952" * 2}
MINE = {"X-Request-ID": "mine"}


@pytest.fixture(params=["with a folder", "without one"])
def folder(request, tmp_path):
    """Return what DATA_DIR is."""
    return tmp_path if request.param == "with a folder" else ""


def asking(client, **headers):
    return asyncio.create_task(client.post("/generate", json=BODY, headers=MINE | headers))


async def test_a_request_can_be_watched_while_it_runs(folder):
    """By its own id, and by that of the job; its answer names the job."""
    engine = FakeEngine(step_seconds=None)
    async with service(folder, engine) as client:
        request = asking(client)
        (job,) = await engine.jobs(1)
        found = await ask(client, "GET", "/jobs/mine", 200)
        assert (found["id"], found["state"], found["attempts"]) == (job, "running", 1)
        assert found["created_at"] <= found["started_at"] < found["deadline_at"]
        assert found == await ask(client, "GET", f"/jobs/{job}", 200)
        watching = [asyncio.create_task(events(client, name)) for name in ("mine", job)]
        while client.app[JOBS].live[job].events.watchers != 2:
            await ask(client, "GET", "/health", 200)
        await engine.step(2)
        for told in await asyncio.gather(*watching):
            kinds = [one["event"] for one in told]
            assert (kinds[0], kinds[-1]) == ("started", "finished")
            assert set(kinds[1:-1]) == {"step"}  # Of several the newest is shown.
            assert json.loads(told[-1]["data"]) == {"id": job}
        async with await request as answer:
            assert (answer.status, answer.headers["X-Job-Id"]) == (200, job)


async def test_nothing_is_left_of_it(tmp_path):
    """It is not listed while it runs, and unknown when it is over."""
    engine = FakeEngine(step_seconds=None)
    async with service(tmp_path, engine) as client:
        request = asking(client)
        (job,) = await engine.jobs(1)
        assert (await ask(client, "GET", "/jobs", 200))["jobs"] == []
        not_ready = await ask(client, "GET", f"/jobs/{job}/image", 409)
        assert not_ready["code"] == "not_ready"
        await engine.step(2)
        async with await request as answer:
            assert answer.status == 200
        for name in ("mine", job):
            await ask(client, "GET", f"/jobs/{name}", 404)
        assert client.app[JOBS].live == {}


async def test_it_can_be_cancelled(folder):
    """Whoever waits gets 409, as for any job that its owner cancels."""
    engine = FakeEngine(step_seconds=None)
    async with service(folder, engine) as client:
        request = asking(client)
        (job,) = await engine.jobs(1)
        ended = await ask(client, "DELETE", "/jobs/mine", 200)
        assert (ended["id"], ended["state"]) == (job, "cancelled")
        assert ended["error"]["code"] == "cancelled"
        assert ended["finished_at"] >= ended["started_at"]
        async with await request as answer:
            assert (answer.status, (await answer.json())["code"]) == (409, "cancelled")
        assert engine.cancelled == [job]


async def test_it_can_be_interrupted(folder):
    """Whoever waits gets the image as it is by then, and how many steps it had."""
    engine = FakeEngine(step_seconds=None)
    async with service(folder, engine) as client:
        request = asking(client)
        (job,) = await engine.jobs(1)
        await engine.step()
        told = await ask(client, "POST", "/jobs/mine/interrupt", 200)
        assert told["id"] == job
        async with await request as answer:
            assert answer.status == 200
            made = (await answer.json())["metadata"]
        assert (made["interrupted"], made["steps_done"], made["steps"]) == (True, 1, 2)
        assert (engine.interrupted, engine.cancelled) == ([job], [])


async def test_a_kept_job_can_be_interrupted(tmp_path):
    """Its row says so; one that waits is cancelled, and one that is over stays as it is."""
    engine = FakeEngine(step_seconds=None)
    async with service(tmp_path, engine, max_concurrent_requests=1) as client:
        running = (await ask(client, "POST", "/jobs", 202, json=BODY))["id"]
        await engine.jobs(1)
        waiting = (await ask(client, "POST", "/jobs", 202, json=BODY))["id"]
        found = await ask(client, "POST", f"/jobs/{waiting}/interrupt", 200)
        assert (found["state"], found["error"]["code"]) == ("cancelled", "cancelled")
        found = await ask(client, "POST", f"/jobs/{running}/interrupt", 200)
        assert found["state"] == "running"
        await engine.step()
        assert (await events(client, running))[-1]["event"] == "finished"
        found = await ask(client, "POST", f"/jobs/{running}/interrupt", 200)
        assert (found["state"], found["steps_done"]) == ("succeeded", 1)
        assert (found["metadata"]["interrupted"], found["metadata"]["steps_done"]) == (True, 1)
        assert engine.interrupted == [running]
        await ask(client, "POST", "/jobs/nothing/interrupt", 404)


async def test_it_belongs_to_its_key(folder):
    """Another key finds neither the job nor the request; its own with the same id is its own."""
    engine = FakeEngine(step_seconds=None)
    async with service(folder, engine, api_keys=Keys(KEYS)) as client:
        asked = asking(client, **ALICE)
        (job,) = await engine.jobs(1)
        missing = 404 if folder else 503
        for method, end in (("GET", ""), ("DELETE", ""), ("POST", "/interrupt")):
            for name in ("mine", job):
                await ask(client, method, f"/jobs/{name}{end}", missing, headers=BOB)
        other = asking(client, **BOB)
        await engine.jobs(2)
        assert (await ask(client, "GET", "/jobs/mine", 200, headers=ALICE))["id"] == job
        assert (await ask(client, "GET", "/jobs/mine", 200, headers=BOB))["id"] != job
        await engine.step(2)
        for request in (asked, other):
            assert (await request).status == 200


async def test_the_id_of_a_job_goes_before_that_of_a_request(tmp_path):
    """Who names a request after a job of another client does not hide that job."""
    engine = FakeEngine(step_seconds=None)
    async with service(tmp_path, engine) as client:
        job = (await ask(client, "POST", "/jobs", 202, json=BODY))["id"]
        await engine.jobs(1)
        await engine.step(2)
        await events(client, job)
        request = asking(client, **{"X-Request-ID": job})
        await engine.jobs(1)
        assert (await ask(client, "GET", f"/jobs/{job}", 200))["state"] == "succeeded"
        await engine.step(2)
        assert (await request).status == 200


async def test_a_waiting_request_has_a_position(serve, queued):
    """As a waiting job has."""
    engine = FakeEngine(step_seconds=None)
    client = await serve(engine, max_concurrent_requests=1)
    first = asyncio.create_task(client.post("/generate", json=BODY))
    await engine.jobs(1)
    second = asking(client)
    await queued(client, 1)
    found = await ask(client, "GET", "/jobs/mine", 200)
    assert (found["state"], found["progress"]["position"]) == ("queued", 1)
    await engine.step(2)
    await engine.jobs(1)
    await engine.step(2)
    assert [(await one).status for one in (first, second)] == [200, 200]


async def test_previews_are_made_of_it(folder):
    """With ``?preview=true``, and only while somebody watches."""
    engine = FakeEngine(step_seconds=None)
    async with service(folder, engine) as client:
        request = asking(client)
        (job,) = await engine.jobs(1)
        watching = asyncio.create_task(events(client, "mine", query="?preview=true"))
        while engine.watched != {job}:
            await ask(client, "GET", "/health", 200)
        await engine.step()
        await ask(client, "GET", "/health", 200)
        await engine.step()
        assert "preview" in {one["event"] for one in await watching}
        assert (await request).status == 200
        assert engine.watched == set()


async def test_a_job_is_found_by_the_request_that_submitted_it(tmp_path):
    """While it is not over; then its id is the only one."""
    engine = FakeEngine(step_seconds=None)
    async with service(tmp_path, engine) as client:
        job = (await ask(client, "POST", "/jobs", 202, json=BODY, headers=MINE))["id"]
        await engine.jobs(1)
        assert (await ask(client, "GET", "/jobs/mine", 200))["id"] == job
        await engine.step(2)
        await events(client, job)
        await ask(client, "GET", "/jobs/mine", 404)
        assert (await ask(client, "GET", f"/jobs/{job}", 200))["state"] == "succeeded"


async def test_all_jobs_of_a_caller_can_be_removed(tmp_path):
    """Finished, running and waiting; those of other keys stay."""
    engine = FakeEngine(step_seconds=None)
    settings = {"api_keys": Keys(KEYS), "max_concurrent_requests": 1}
    async with service(tmp_path, engine, **settings) as client:
        jobs = []
        for headers in (ALICE, ALICE, ALICE, BOB):
            job = await ask(client, "POST", "/jobs", 202, json=BODY, headers=headers)
            jobs.append(job["id"])
        await engine.jobs(1)
        await engine.step(2)
        await engine.jobs(1)
        assert await ask(client, "DELETE", "/jobs", 200, headers=ALICE) == {"removed": 3}
        for job in jobs[:3]:
            await ask(client, "GET", f"/jobs/{job}", 404, headers=ALICE)
            await ask(client, "GET", f"/jobs/{job}/image", 404, headers=ALICE)
        page = await ask(client, "GET", "/jobs", 200, headers=BOB)
        assert [job["id"] for job in page["jobs"]] == [jobs[3]]
        assert await ask(client, "DELETE", "/jobs", 200, headers=ALICE) == {"removed": 0}


async def test_jobs_in_memory_are_removed_without_a_folder():
    """They are cancelled, and nothing else is there."""
    async with service("", FakeEngine(step_seconds=None)) as client:
        assert await ask(client, "DELETE", "/jobs", 200) == {"removed": 0}
