"""Spans, as a collector gets them."""

import asyncio
import json
import os
import socket
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web

from service.app import create_app
from service.config import Config
from service.engine.fake import FakeEngine
from service.http.keys import CONSUMER, METRICS
from service.telemetry import logs

pytest.importorskip("opentelemetry.sdk", reason="the extra 'tracing' is not installed")
pytest.importorskip(
    "opentelemetry.exporter.otlp.proto.http", reason="the extra 'tracing' is not installed"
)

from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from opentelemetry.proto.trace.v1 import trace_pb2

from service.telemetry import spans

BODY = {"prompt": "SECRET", "negative_prompt": "SECRET", "width": 256, "height": 256, "steps": 2}
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
CALLER = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "vendor=1,other=2"}
ERROR = trace_pb2.Status.STATUS_CODE_ERROR


@dataclass(kw_only=True)
class Collector:
    """What a collector received."""

    url: str = ""
    bodies: list[bytes] = field(default_factory=list)

    @property
    def groups(self) -> list[Any]:
        return [
            group
            for body in self.bodies
            for group in trace_service_pb2.ExportTraceServiceRequest.FromString(body).resource_spans
        ]

    @property
    def resource(self) -> dict[str, Any]:
        return attributes(self.groups[0].resource)

    @property
    def spans(self) -> dict[str, Any]:
        """The spans by name; a test makes each once."""
        found = [
            span for group in self.groups for scope in group.scope_spans for span in scope.spans
        ]
        assert len({span.name for span in found}) == len(found)
        return {span.name: span for span in found}


def attributes(thing: Any) -> dict[str, Any]:
    return {row.key: getattr(row.value, row.value.WhichOneof("value")) for row in thing.attributes}


@pytest.fixture
async def collector(aiohttp_server):
    """Run a collector on loopback."""
    received = Collector()

    async def traces(request: web.Request) -> web.Response:
        assert request.content_type == "application/x-protobuf"
        received.bodies.append(await request.read())
        return web.Response(content_type="application/x-protobuf")

    app = web.Application()
    app.router.add_post("/v1/traces", traces)
    received.url = str((await aiohttp_server(app)).make_url("/"))
    return received


@pytest.fixture(autouse=True)
def _environment(monkeypatch, collector):
    """Point OpenTelemetry's variables, and no others, at the collector."""
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    monkeypatch.setattr(spans.SELDOM, "_next", {})  # Every test hears the first complaint.


@pytest.fixture
def serve(aiohttp_client):
    """Start a traced application; return its client."""

    async def start(engine: FakeEngine | None = None, **settings: Any):
        config = Config(**{"data_dir": ""} | settings)
        return await aiohttp_client(create_app(config, engine or FakeEngine()))

    return start


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
    assert server.kind == trace_pb2.Span.SPAN_KIND_SERVER
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
        "POST /generate": (ERROR, "cancelled"),
        "queue": (0, ""),
        "generation": (ERROR, "cancelled"),
    }
    described = attributes(found["generation"])
    assert (described["sd.outcome"], described["sd.steps_done"]) == ("client_gone", 1)


async def test_a_job_that_is_given_up_while_it_waits_has_a_queue_span_only(serve, collector):
    """Nothing of it was worked on."""
    client = await serve(FakeEngine(loads=False))
    asked = asyncio.create_task(client.post("/generate", json=BODY))
    while not client.app[CONSUMER].depth:
        async with client.get("/health/live"):
            pass
    client.app[CONSUMER].give_up()
    async with await asked as answer:
        assert answer.status == 503
    await client.close()
    states = {name: s.status.code for name, s in collector.spans.items()}
    assert states == {"POST /generate": ERROR, "queue": ERROR}


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


async def test_the_settings_are_opentelemetrys_own(serve, collector, monkeypatch):
    """Name and attributes of the service, for example."""
    monkeypatch.setenv("OTEL_SERVICE_NAME", "pictures")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
    client = await serve()
    async with client.post("/generate", json=BODY):
        pass
    await client.close()
    named = collector.resource
    assert (named["service.name"], named["deployment.environment.name"]) == ("pictures", "test")


@pytest.mark.parametrize(
    ("name", "value"), [("OTEL_TRACES_SAMPLER", "always_off"), ("OTEL_SDK_DISABLED", "true")]
)
async def test_nothing_is_exported_that_is_not_wanted(serve, collector, monkeypatch, name, value):
    """A sampler, and the switch for everything."""
    monkeypatch.setenv(name, value)
    client = await serve()
    async with client.post("/generate", json=BODY) as answer:
        assert answer.status == 200
    await client.close()
    assert collector.bodies == []


async def test_a_caller_who_does_not_record_is_not_recorded(serve, collector):
    """The usual sampler follows the caller; the log has the trace all the same."""
    client = await serve()
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-00"}
    async with client.post("/generate", json=BODY, headers=headers) as answer:
        assert answer.status == 200
    await client.close()
    assert collector.bodies == []


async def test_a_collector_that_is_down_fails_nothing_and_is_one_line(serve, capsys, monkeypatch):
    """Requests are answered, the end comes in time, and the log is not flooded."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "1")
    monkeypatch.setattr(spans, "FLUSH_SECONDS", 0.05)
    logs.configure(Config(log_format="json"))
    client = await serve()
    text = ""
    while spans.CHATTY[0] not in text:
        async with client.post("/generate", json=BODY) as answer:
            assert answer.status == 200
        text += capsys.readouterr().err
    await client.close()
    text += capsys.readouterr().err
    lines = [json.loads(line) for line in text.splitlines()]
    (complaint,) = [line for line in lines if line["logger"] in spans.CHATTY]
    assert "refused" in complaint["event"]
    assert [line["event"] for line in lines].count("last_spans_lost") == 1


async def test_a_collector_that_hangs_does_not_hold_up_the_end(serve, aiohttp_server, monkeypatch):
    """What it does not take in time is lost."""
    never, asked = asyncio.Event(), asyncio.Event()

    async def traces(_request: web.Request) -> web.Response:
        asked.set()
        await never.wait()
        return web.Response()

    app = web.Application()
    app.router.add_post("/v1/traces", traces)
    server = await aiohttp_server(app)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", str(server.make_url("/")))
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "1")
    monkeypatch.setattr(spans, "FLUSH_SECONDS", 0.05)
    client = await serve()
    async with client.post("/generate", json=BODY):
        pass
    await asked.wait()
    await client.close()
    assert not never.is_set()
    never.set()


@pytest.mark.parametrize(
    ("setting", "event"),
    [
        (("OTEL_BSP_MAX_QUEUE_SIZE", "0"), "tracing_not_started"),
        (("OTEL_EXPORTER_OTLP_ENDPOINT", "http://[::1"), "tracing_not_started"),
        (("OTEL_EXPORTER_OTLP_ENDPOINT", "localhost:4318"), "tracing_not_started"),
        (("OTEL_EXPORTER_OTLP_ENDPOINT", "not a url"), "tracing_not_started"),
        (("OTEL_EXPORTER_OTLP_ENDPOINT", "://"), "tracing_not_started"),
        (("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"), "tracing_protocol_unknown"),
        (("OTEL_EXPORTER_OTLP_ENDPOINT", "http://me:SECRET@127.0.0.1:9"), "tracing_started"),
    ],
)
async def test_settings_that_cannot_be_used_are_a_line_and_not_the_end(
    serve, capsys, monkeypatch, setting, event
):
    """The service is worth more than its traces; a password is not shown."""
    monkeypatch.setenv(*setting)
    logs.configure(Config(log_format="json"))
    client = await serve()
    async with client.get("/health") as answer:
        assert answer.status == 200
    await client.close()
    text = capsys.readouterr().err
    assert event in {json.loads(line)["event"] for line in text.splitlines()}
    assert "SECRET" not in text


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
    assert sample("sd_stage_duration_seconds_count", {"stage": "image_encode"}) == 1


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
