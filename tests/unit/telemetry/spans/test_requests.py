"""Spans of requests: one tree below the caller's span, which says no secrets."""

import json

from service.config.table import Config
from service.telemetry import logs
from tests.support.simulation.fake_engine import FakeEngine
from tests.unit.telemetry.spans.collector import BODY, CALLER, PARENT, SERVER, TRACE, attributes


async def test_a_request_and_its_stages_are_one_tree_below_the_callers_span(serve, collector):
    """The trace of the caller, one server span, and the job below it."""
    client = await serve(FakeEngine(step_seconds=0.001))
    headers = {**CALLER, "X-Request-ID": "mine"}
    async with client.post("/generate", json=BODY, headers=headers) as answer:
        assert answer.status == 200
    await client.close()
    found = collector.spans
    parents = {
        name: next((n for n, s in found.items() if s.span_id == span.parent_span_id), None)
        for name, span in found.items()
    }
    expected = {
        "POST /generate": None,
        "queue": "POST /generate",
        "generation": "POST /generate",
        "denoise": "generation",
        "image_encode": "POST /generate",
    }
    assert expected == parents
    assert {span.trace_id.hex() for span in found.values()} == {TRACE}
    server = found["POST /generate"]
    assert (server.parent_span_id.hex(), server.trace_state) == (PARENT, "vendor=1,other=2")
    assert server.kind == SERVER
    assert {span.status.code for span in found.values()} == {0}


async def test_the_spans_say_what_was_asked_for_and_how_it_was_answered(serve, collector):
    """By the names of OpenTelemetry's conventions where there are some."""
    client = await serve()
    async with client.post("/generate", json=BODY, headers={"X-Request-ID": "mine"}):
        pass
    await client.close()
    expected = {
        "http.request.method": "POST",
        "http.route": "/generate",
        "http.response.status_code": 200,
        "url.scheme": "http",
        "sd.request_id": "mine",
    }
    assert expected == attributes(collector.spans["POST /generate"])
    job = attributes(collector.spans["generation"])
    assert job.pop("sd.job_id") == attributes(collector.spans["queue"])["sd.job_id"]
    expected = {
        "sd.width": 256,
        "sd.height": 256,
        "sd.steps": 2,
        "sd.steps_done": 2,
        "sd.num_images": 1,
        "sd.sampler": "dpmpp_2m",
        "sd.schedule": "automatic",
        "sd.outcome": "succeeded",
        "sd.attempts": 1,
    }
    assert expected == job
    assert collector.resource["service.name"] == "sd-api"


async def test_the_spans_of_a_job_meet_at_their_ends(serve, collector):
    """They stand at the job's own times: where waiting ends, work begins."""
    client = await serve()
    async with client.post("/generate", json=BODY):
        pass
    await client.close()
    found = collector.spans
    queue, generation, denoise = (found[name] for name in ("queue", "generation", "denoise"))
    assert queue.start_time_unix_nano <= queue.end_time_unix_nano
    assert queue.end_time_unix_nano == generation.start_time_unix_nano
    assert (denoise.start_time_unix_nano, denoise.end_time_unix_nano) == (
        generation.start_time_unix_nano,
        generation.end_time_unix_nano,
    )


async def test_a_request_without_a_trace_begins_one_that_the_log_names(serve, collector, capsys):
    """Whoever has the line finds the spans."""
    client = await serve()
    logs.configure(Config(log_format="json"))
    async with client.post("/generate", json=BODY):
        pass
    await client.close()
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    server = collector.spans["POST /generate"]
    assert server.parent_span_id == b""
    named = {line["event"] for line in lines if line.get("trace_id") == server.trace_id.hex()}
    assert {"job_queued", "job_ended", "request_answered"} <= named


async def test_prompts_keys_and_paths_are_in_no_span(serve, collector):
    """Traces leave the machine, and are kept by others."""
    client = await serve()
    headers = {"Authorization": "Bearer SECRET", "X-API-Key": "SECRET"}
    async with client.post("/generate?a=SECRET", json=BODY, headers=headers):
        pass
    async with client.post("/generate", json={**BODY, "SECRET": 1}, headers=headers):
        pass
    async with client.request("SECRET", "/SECRET", headers=headers):
        pass
    await client.close()
    assert collector.bodies
    assert b"SECRET" not in b"".join(collector.bodies)


async def test_a_refusal_is_no_error_of_the_service(serve, collector):
    """4xx leaves the status of a server span alone; the kind of refusal is an attribute."""
    client = await serve()
    async with client.post("/generate", json={}) as answer:
        assert answer.status == 400
    await client.close()
    (span,) = collector.spans.values()
    assert (span.status.code, attributes(span)["error.type"]) == (0, "validation_error")


async def test_what_machines_ask_all_the_time_makes_no_spans(serve, collector):
    """A probe every few seconds would bury the rest."""
    client = await serve()
    for path in ("/health", "/health/live", "/health/ready", "/metrics"):
        async with client.get(path):
            pass
    await client.close()
    assert collector.bodies == []


async def test_unknown_routes_and_methods_share_one_name(serve, collector):
    """Names of spans are grouped by, as labels are."""
    client = await serve()
    async with client.request("PROPFIND", "/any/path"):
        pass
    await client.close()
    (span,) = collector.spans.values()
    assert (span.name, attributes(span)["http.request.method"]) == ("HTTP", "_OTHER")
    assert "http.route" not in attributes(span)
