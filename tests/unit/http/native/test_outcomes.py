"""Each way in which a job ends: what its metrics, log line, row and last event say of it."""

import asyncio
import json
import shutil

import pytest
from structlog.testing import capture_logs

from service.core.outcome import Outcome
from service.http.state import DISPATCHER, DURABLE, METRICS
from tests.support.job_service import BODY, ask, events, service, until
from tests.support.simulation.fake_engine import FakeEngine

KEY = {"Idempotency-Key": "order-1"}


def outcomes(client, name="sd_jobs_total"):
    """Return how many jobs ended in each way, those that none ended in left out."""
    return {
        sample.labels["outcome"]: sample.value
        for metric in client.app[METRICS].registry.collect()
        for sample in metric.samples
        if sample.name == name and sample.value
    }


async def asked(client, path="/jobs", **more):
    """Hand a job in and return its id; a running request to ``/generate`` comes with it."""
    if path == "/jobs":
        return (await ask(client, "POST", path, 202, json=BODY | more))["id"], None
    request = asyncio.create_task(client.post(path, json=BODY | more, headers=KEY))
    while not (found := (await ask(client, "GET", "/jobs", 200))["jobs"]):
        pass
    return found[0]["id"], request


async def cancelled_in_queue(client, engine):
    await asked(client)
    await engine.jobs(1)
    job, _ = await asked(client)
    await ask(client, "DELETE", f"/jobs/{job}", 200)
    return job


async def cancelled_at_work(client, engine):
    job, _ = await asked(client)
    await engine.jobs(1)
    await ask(client, "DELETE", f"/jobs/{job}", 200)
    return job


async def cancelled_while_a_client_waits(client, engine):
    job, request = await asked(client, "/generate")
    await engine.jobs(1)
    await ask(client, "DELETE", f"/jobs/{job}", 200)
    async with await request as answer:
        assert (answer.status, (await answer.json())["code"]) == (409, "cancelled")
    return job


async def disconnected_in_queue(client, engine):
    await asked(client)
    await engine.jobs(1)
    request = asyncio.create_task(client.post("/generate", json=BODY, headers=KEY))
    while client.app[DISPATCHER].depth != 1:
        await ask(client, "GET", "/health", 200)
    job = (await ask(client, "GET", "/jobs", 200))["jobs"][0]["id"]
    request.cancel()
    return job


async def disconnected_at_work(client, engine):
    job, request = await asked(client, "/generate")
    await engine.jobs(1)
    request.cancel()
    return job


async def late_in_queue(client, engine):
    await asked(client)
    await engine.jobs(1)
    return (await asked(client, timeout_seconds=0.05))[0]


async def late_at_work(client, engine):
    # Long enough that the engine has it first, on a busy machine too.
    job, _ = await asked(client, timeout_seconds=1)
    await engine.jobs(1)
    return job


async def failed(client, engine):
    job, _ = await asked(client)
    await engine.jobs(1)
    engine.fail()
    return job


async def failed_under_another_name(client, engine):
    # The engine may say what it likes: a job that it fails has failed.
    job, _ = await asked(client)
    await engine.jobs(1)
    engine.fail(code="shutting_down")
    return job


async def poison(client, engine):
    job, _ = await asked(client)
    for _ in range(3):
        await engine.jobs(1)
        engine.crash()
    return job


async def not_kept(client, engine, path="/jobs"):
    # The folder of the results is gone when the images come.
    job, request = await asked(client, path)
    await engine.jobs(1)
    results = client.app[DURABLE].results.folder
    results.rename(results.with_name("elsewhere"))
    results.touch()
    await engine.step(2)
    if request:
        async with await request as answer:
            assert (answer.status, (await answer.json())["code"]) == (503, "storage_unavailable")
    return job


async def not_kept_while_a_client_waits(client, engine):
    return await not_kept(client, engine, "/generate")


async def without_room(client, engine):
    job, _ = await asked(client)
    await engine.jobs(1)
    client.app[DURABLE].results._disk.keep_free = 2**80
    await engine.step(2)
    return job


async def succeeded(client, engine):
    job, _ = await asked(client)
    await engine.jobs(1)
    await engine.step(2)
    return job


async def cancelled_too_late(client, engine):
    job = await succeeded(client, engine)
    await ask(client, "DELETE", f"/jobs/{job}", 200)
    return job


WAYS = [
    (cancelled_in_queue, Outcome.CANCELLED, "cancelled", "cancelled"),
    (cancelled_at_work, Outcome.CANCELLED, "cancelled", "cancelled"),
    (cancelled_while_a_client_waits, Outcome.CANCELLED, "cancelled", "cancelled"),
    (disconnected_in_queue, Outcome.DISCONNECTED, "cancelled", "disconnected"),
    (disconnected_at_work, Outcome.DISCONNECTED, "cancelled", "disconnected"),
    (late_in_queue, Outcome.TIMED_OUT, "failed", "timeout"),
    (late_at_work, Outcome.TIMED_OUT, "failed", "timeout"),
    (failed, Outcome.FAILED, "failed", "generation_failed"),
    (failed_under_another_name, Outcome.FAILED, "failed", "shutting_down"),
    (poison, Outcome.FAILED, "failed", "engine_crashed"),
    (not_kept, Outcome.FAILED, "failed", "storage_unavailable"),
    (not_kept_while_a_client_waits, Outcome.FAILED, "failed", "storage_unavailable"),
    (without_room, Outcome.FAILED, "failed", "storage_full"),
    (succeeded, Outcome.SUCCEEDED, "succeeded", None),
    (cancelled_too_late, Outcome.SUCCEEDED, "succeeded", None),
]


@pytest.mark.parametrize(("way", "outcome", "state", "code"), WAYS)
async def test_every_end_is_told_in_one_way(tmp_path, way, outcome, state, code):
    """Metrics, the log line, the row and the last event agree on how a job ended."""
    engine = FakeEngine(step_seconds=None)
    async with service(tmp_path, engine, max_concurrent_requests=1) as client:
        with capture_logs() as lines:
            job = await way(client, engine)
            stored = await until(client, job, "succeeded", "failed", "cancelled")
        assert stored["state"] == state
        assert (stored["error"] or {}).get("code") == code
        assert outcomes(client) == {outcome: 1}
        assert outcomes(client, "sd_key_jobs_total") == {outcome: 1}
        assert outcomes(client, "sd_job_duration_seconds_count") == {outcome: 1}
        ended = [line for line in lines if line["event"] == "job_ended"]
        assert [(line["job_id"], line["outcome"]) for line in ended] == [(job, outcome)]
        assert ended[0]["error"] == code
        labels = {"api": "native", "outcome": outcome}
        labels["code"] = code if outcome is Outcome.FAILED else ""
        sample = client.app[METRICS].registry.get_sample_value
        assert sample("sd_jobs_total", labels) == 1
        assert sample("sd_answers_failed_total") == 0  # It counts beside the jobs.
        last = (await events(client, job))[-1]
        assert last["event"] == {"succeeded": "finished"}.get(state, state)
        assert json.loads(last["data"]).get("code") == code


async def test_a_job_that_is_given_up_at_a_start_is_told_in_the_same_way(tmp_path):
    """It ended the process with each of its attempts: nobody else has seen it end."""
    engine = FakeEngine(step_seconds=None)
    async with service(tmp_path / "a", engine) as client:
        job, _ = await asked(client)
        await engine.jobs(1)
        await until(client, job, "running")
        while (await client.app[DURABLE].store.get(job, "anonymous")).attempts != 1:
            pass
        # What a kill -9 leaves now.
        await asyncio.to_thread(shutil.copytree, tmp_path / "a", tmp_path / "b")
    with capture_logs() as lines:
        async with service(tmp_path / "b", max_attempts=1) as client:
            stored = await ask(client, "GET", f"/jobs/{job}", 200)
            assert (stored["state"], stored["error"]["code"]) == ("failed", "engine_crashed")
            assert outcomes(client) == {"failed": 1}
            assert outcomes(client, "sd_key_jobs_total") == {"failed": 1}
    ended = [line for line in lines if line["event"] == "job_ended"]
    assert [(line["job_id"], line["outcome"]) for line in ended] == [(job, "failed")]


@pytest.mark.parametrize("way", ["/jobs", "/generate"])
async def test_a_shutdown_ends_a_job_as_shut_down(tmp_path, way):
    """Nobody cancelled it and no client left: it waits on the disk for the next start."""
    engine = FakeEngine(step_seconds=None)
    async with service(tmp_path, engine) as client:
        job, request = await asked(client, way)
        await engine.jobs(1)
        metrics = client.app[METRICS]
        with capture_logs() as lines:
            await client.server.close()
        if request:
            async with await request as answer:
                assert (await answer.json())["code"] == "shutting_down"
    ended = [line for line in lines if line["event"] == "job_ended"]
    assert [(line["job_id"], line["outcome"]) for line in ended] == [(job, "shut_down")]
    labels = {"api": "native", "outcome": "shut_down", "code": ""}
    assert metrics.registry.get_sample_value("sd_jobs_total", labels) == 1
    async with service(tmp_path) as client:
        assert (await until(client, job, "succeeded"))["attempts"] == 1
