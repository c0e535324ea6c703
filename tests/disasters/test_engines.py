"""Engines that end, hang, lie or never come up, in a whole service with real processes."""

import asyncio
import os
import signal

import pytest

ALONE = {"MAX_CONCURRENT_REQUESTS": 1}


@pytest.mark.parametrize(
    ("order", "reason"),
    [
        ("killed", "killed"),
        ("segfault", "crashed"),
        ("exits", "exited"),
        ("raises", "exited"),
        ("a short image", "garbage"),
        ("no message", "garbage"),
    ],
)
async def test_a_client_gets_its_image_from_the_next_engine(
    light, client_of, tmp_path, order, reason
):
    """However the first one ended; the end is counted under its reason."""
    with light() as service:
        client = await client_of(service)
        status, body = await client.generate(f"{order} once {tmp_path / 'done'}")
        assert (status, body["metadata"]["attempts"]) == (200, 2)
        assert await client.metric(f'sd_engine_restarts_total{{reason="{reason}"}}') == 1
        assert (await service.line("engine_exited"))["reason"] == reason


async def test_a_hanging_engine_is_not_ready_and_then_replaced(light, client_of, tmp_path):
    """Readiness ends well before the kill, and comes back with the next engine."""
    with light(ENGINE_STALL_SECONDS=6) as service:
        client = await client_of(service)
        await client.until_ready()
        asked = asyncio.create_task(client.generate(f"hangs once {tmp_path / 'done'}"))
        late = await client.until_ready(False)
        assert late["code"] == "engine_unavailable"
        assert await client.metric('sd_engine_heartbeat_age_seconds{engine="0"}') >= 3
        assert await client.metric("sd_ready") == 0
        assert "engine_exited" not in [line["event"] for line in service.log]
        status, body = await asked
        assert (status, body["metadata"]["attempts"]) == (200, 2)
        assert await client.metric('sd_engine_restarts_total{reason="stalled"}') == 1
        await client.until_ready()


async def test_a_poison_job_is_named_and_its_batch_mates_are_finished(light, client_of):
    """The last attempt runs alone, so that the others are not failed with it."""
    with light(MAX_CONCURRENT_REQUESTS=3, CHILD_STEP_SECONDS=0.05) as service:
        client = await client_of(service)
        await client.until_ready()
        prompts = ("a cat", "killed", "a dog")
        cat, poison, dog = [await client.accepted(prompt, steps=20) for prompt in prompts]
        ends = [await client.ended(job) for job in (cat, poison, dog)]
        assert [end["state"] for end in ends] == ["succeeded", "failed", "succeeded"]
        assert ends[1]["error"]["code"] == "engine_crashed"
        assert "3 times" in ends[1]["error"]["detail"]
        lines = [line for line in service.log if line["event"] == "job_requeued"]
        assert {line["job_id"] for line in lines} >= {poison}


async def test_a_poison_job_is_given_up_across_restarts_of_the_service(light, client_of, tmp_path):
    """Attempts are on the disk: a job that ends every process is not run for ever."""
    poison = ""
    for attempt in range(1, 4):
        with light(DATA_DIR=tmp_path, **ALONE) as service:
            client = await client_of(service)
            if not poison:
                await client.until_ready()
                poison = await client.accepted("stays")
                innocent = await client.accepted("a cat")
            assert (await service.line("job_started"))["attempt"] == attempt
            # The store is one thread: what it answers now, it was told after the attempt.
            assert (await client.job(poison))["state"] == "running"
            service.kill()
    with light(DATA_DIR=tmp_path, **ALONE) as service:
        client = await client_of(service)
        ends = [await client.ended(job) for job in (poison, innocent)]
    assert [end["state"] for end in ends] == ["failed", "succeeded"]
    assert ends[0]["error"]["code"] == "engine_crashed"
    assert "3 times" in ends[0]["error"]["detail"]


async def test_the_circuit_opens_and_closes_around_what_was_accepted(light, client_of):
    """Two poison jobs open it; both are failed by name, and the job behind them closes it."""
    with light(LIGHT_DELAYS="0,0.05,0.05,0.05,2", **ALONE) as service:
        client = await client_of(service)
        await client.until_ready()
        jobs = [await client.accepted(prompt) for prompt in ("killed", "killed", "a cat")]
        await service.line("circuit_opened")
        not_ready = await client.until_ready(False)
        status, refused = await client.generate()
        state = await client.metric('sd_engine_state{state="circuit_open"}')
        assert (status, refused["code"]) == (503, "engine_unavailable")
        assert 1 <= int(refused["retry_after"]) <= 3
        assert (await client.submit())[1]["code"] == "engine_unavailable"
        assert (not_ready["code"], state) == ("engine_unavailable", 1)
        ends = [await client.ended(job) for job in jobs]
        assert [end["state"] for end in ends] == ["failed", "failed", "succeeded"]
        assert {end["error"]["code"] for end in ends[:2]} == {"engine_crashed"}
        await service.line("circuit_closed")
        await client.until_ready()
        assert (await client.generate())[0] == 200


async def test_a_model_damaged_while_it_runs_opens_the_circuit_until_it_is_repaired(
    light, client_of, tmp_path
):
    """The service lives, says why, keeps what it accepted, and goes on by itself."""
    model = tmp_path / "model"
    model.write_text("whole")
    with light(LIGHT_ENTRY="from_a_file", CHILD_MODEL=model, **ALONE) as service:
        client = await client_of(service)
        await client.until_ready()
        waiting = await client.accepted("stays")
        behind = await client.accepted("a cat")
        model.write_text("who")
        os.kill(service.engine_pid, signal.SIGKILL)
        await service.line("circuit_opened")
        status, body = await client.get("/health")
        assert (status, body["status"]) == (200, "degraded")
        assert body["engine"]["failure"] == "The weights are cut short."
        assert (await client.generate())[1]["code"] == "engine_unavailable"
        assert await client.metric('sd_engine_restarts_total{reason="load_failed"}') >= 4
        assert (await client.job(waiting))["state"] == "queued"
        model.write_text("whole")
        await service.line("model_loaded", count=2)
        async with client.session.delete(f"/jobs/{waiting}") as answer:
            assert answer.status == 200
        assert (await client.ended(behind))["state"] == "succeeded"
        await client.until_ready()


async def test_a_device_that_is_full_at_the_start_is_waited_for(light, client_of, tmp_path):
    """The service says why, refuses with a time, and goes on by itself when there is room."""
    model = tmp_path / "model"
    model.write_text("full")
    with light(LIGHT_ENTRY="from_a_file", CHILD_MODEL=model, **ALONE) as service:
        client = await client_of(service)
        accepted = await client.accepted("a cat")
        await service.line("circuit_opened")
        assert (await client.get("/health"))[1]["engine"]["failure"] == "The device is full."
        assert (await client.get("/health/ready"))[0] == 503
        async with client.session.post("/generate", json={"prompt": "a cat"}) as answer:
            assert (answer.status, (await answer.json())["code"]) == (503, "engine_unavailable")
            assert int(answer.headers["Retry-After"]) >= 1
        model.write_text("whole")
        assert (await client.ended(accepted))["state"] == "succeeded"
        await client.until_ready()


async def test_jobs_of_an_earlier_process_survive_a_start_without_a_model(
    light, client_of, tmp_path
):
    """They wait for a start that can load it; new ones are refused with the reason."""
    model = tmp_path / "model"
    model.write_text("whole")
    settings = {
        "LIGHT_ENTRY": "from_a_file",
        "CHILD_MODEL": model,
        "DATA_DIR": tmp_path / "data",
        "MAX_CONCURRENT_REQUESTS": 1,
    }
    with light(CHILD_STEP_SECONDS=1, **settings) as service:
        client = await client_of(service)
        await client.until_ready()
        jobs = [await client.accepted() for _ in range(2)]
        await service.line("job_started")
        service.kill()
    model.write_text("who")
    with light(**settings) as service:
        client = await client_of(service)
        assert (await service.line("model_load_failed"))["kept"] == 2
        assert (await client.submit())[1]["code"] == "model_unavailable"
        assert [(await client.job(job))["state"] for job in jobs] == ["queued", "queued"]
        assert await asyncio.to_thread(service.end) == 0
    model.write_text("whole")
    with light(**settings) as service:
        client = await client_of(service)
        assert [(await client.ended(job))["state"] for job in jobs] == ["succeeded"] * 2


async def test_a_service_that_was_stopped_takes_no_engine_for_dead(light, client_of):
    """SIGSTOP for longer than every limit: the engine lives, and so do its jobs' results."""
    with light(ENGINE_STALL_SECONDS=4, CHILD_STEP_SECONDS=0.2) as service:
        client = await client_of(service)
        await client.until_ready()
        job = await client.accepted(steps=40)
        await service.line("job_started")
        service.process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(6)  # Longer than the limit; nothing happens meanwhile.
        service.process.send_signal(signal.SIGCONT)
        assert (await client.ended(job))["state"] == "succeeded"
        assert "engine_exited" not in [line["event"] for line in service.log]
        assert (await client.generate())[0] == 200


@pytest.mark.long
async def test_a_stop_that_outlasts_a_deadline_ends_that_request_and_no_other(light, client_of):
    """Who asked for less time gets 408; the service goes on."""
    with light(CHILD_STEP_SECONDS=0.2) as service:
        client = await client_of(service)
        await client.until_ready()
        short = await client.accepted(steps=40, timeout_seconds=1)
        patient = await client.accepted(steps=10)
        await service.line("job_started", count=2)
        service.process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(2)
        service.process.send_signal(signal.SIGCONT)
        ends = [await client.ended(job) for job in (short, patient)]
        assert [end["state"] for end in ends] == ["failed", "succeeded"]
        assert ends[0]["error"]["code"] == "timeout"
