"""Spans of jobs: how they end, and jobs that outlive their request or their service."""

import asyncio

from service.http.state import DISPATCHER, DURABLE, METRICS
from tests.support.simulation.fake_engine import FakeEngine
from tests.unit.telemetry.spans.collector import BODY, CALLER, ERROR, TRACE, attributes


async def test_a_job_whose_client_hangs_up_ends_in_error(serve, collector):
    """It waited in vain, and its work was for nothing."""
    engine = FakeEngine(step_seconds=None)
    client = await serve(engine)
    asked = asyncio.create_task(client.post("/generate", json=BODY))
    await engine.jobs(1)
    await engine.step()
    asked.cancel()
    await engine.jobs(0)
    await client.close()
    found = collector.spans
    states = {name: (s.status.code, s.status.message) for name, s in found.items()}
    assert states == {
        "POST /generate": (ERROR, "disconnected"),
        "queue": (0, ""),
        "generation": (ERROR, "disconnected"),
    }
    described = attributes(found["generation"])
    assert (described["sd.outcome"], described["sd.steps_done"]) == ("disconnected", 1)


async def test_a_job_that_is_given_up_while_it_waits_has_a_queue_span_only(serve, collector):
    """Nothing of it was worked on."""
    client = await serve(FakeEngine(loads=False))
    asked = asyncio.create_task(client.post("/generate", json=BODY))
    while not client.app[DISPATCHER].depth:
        async with client.get("/health/live"):
            pass
    client.app[DISPATCHER].give_up()
    async with await asked as answer:
        assert answer.status == 503
    await client.close()
    states = {name: s.status.code for name, s in collector.spans.items()}
    assert states == {"POST /generate": ERROR, "queue": ERROR}
    assert attributes(collector.spans["queue"])["sd.outcome"] == "shut_down"


async def test_a_job_that_fails_names_its_error(serve, collector):
    """By its code; the detail is in the log."""
    engine = FakeEngine(step_seconds=None)
    client = await serve(engine)
    asked = asyncio.create_task(client.post("/generate", json=BODY))
    await engine.jobs(1)
    engine.fail("generation_failed")
    async with await asked as answer:
        assert answer.status == 500
    await client.close()
    for name in ("POST /generate", "generation"):
        span = collector.spans[name]
        assert (span.status.code, span.status.message) == (ERROR, "generation_failed")
        assert attributes(span)["error.type"] == "generation_failed"


async def until_ended(client, job):
    """Wait for the end of a job."""
    async with client.get(f"/jobs/{job}/events") as answer:
        assert "event: finished" in await answer.text()


async def test_a_job_that_is_fetched_later_is_part_of_its_requests_trace(
    serve, collector, tmp_path
):
    """Its stages come when it is over, below a span that was answered long before."""
    client = await serve(FakeEngine(step_seconds=0.001), data_dir=str(tmp_path))
    async with client.post("/jobs", json=BODY, headers=CALLER) as answer:
        job = (await answer.json())["id"]
    await until_ended(client, job)
    await client.close()
    found = {name: span for name, span in collector.spans.items() if not name.startswith("GET")}
    assert {span.trace_id.hex() for span in found.values()} == {TRACE}
    parents = {
        name: next((n for n, s in found.items() if s.span_id == span.parent_span_id), None)
        for name, span in found.items()
    }
    assert parents == {
        "POST /jobs": None,
        "queue": "POST /jobs",
        "generation": "POST /jobs",
        "denoise": "generation",
        "image_encode": "POST /jobs",
        "image_store": "POST /jobs",
    }
    assert b"SECRET" not in b"".join(collector.bodies)
    sample = client.app[METRICS].registry.get_sample_value
    assert sample("sd_stage_duration_seconds_count", {"engine": "0", "stage": "image_encode"}) == 1


async def test_a_job_whose_images_are_not_kept_ends_in_error(serve, collector, tmp_path):
    """Its spans and its device time say what its row says: what was drawn is lost."""
    engine = FakeEngine(step_seconds=None)
    client = await serve(engine, data_dir=str(tmp_path))
    request = asyncio.create_task(
        client.post("/generate", json=BODY, headers={"Idempotency-Key": "a"})
    )
    await engine.jobs(1)
    client.app[DURABLE].results._disk.keep_free = 2**80
    engine._step_seconds = 0.5  # What it says of each step; the steps are still the test's.
    await engine.step(2)
    async with await request as answer:
        assert (answer.status, (await answer.json())["code"]) == (503, "storage_full")
    sample = client.app[METRICS].registry.get_sample_value
    await client.close()
    generation = collector.spans["generation"]
    assert (generation.status.code, generation.status.message) == (ERROR, "storage_full")
    assert attributes(generation)["sd.outcome"] == "failed"
    assert sample("sd_gpu_seconds_total", {"engine": "0", "use": "useful"}) == 0
    assert sample("sd_gpu_seconds_total", {"engine": "0", "use": "failed"}) == 1


async def test_a_job_goes_on_in_its_trace_after_a_restart(serve, collector, tmp_path):
    """The next process only knows which trace it was."""
    client = await serve(
        FakeEngine(step_seconds=None), data_dir=str(tmp_path), shutdown_timeout_seconds=0.01
    )
    async with client.post("/jobs", json=BODY, headers=CALLER) as answer:
        job = (await answer.json())["id"]
    await client.close()
    collector.bodies.clear()
    client = await serve(FakeEngine(), data_dir=str(tmp_path))
    await until_ended(client, job)
    await client.close()
    found = collector.spans
    for name in ("queue", "generation", "image_encode", "image_store"):
        assert found[name].trace_id.hex() == TRACE
