"""What every request passes through."""

import asyncio
import contextlib
import json
import re
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from structlog.testing import capture_logs

from service.config import Config
from service.engine.fake import FakeEngine
from service.http import middlewares
from service.http.keys import CONSUMER, METRICS
from service.telemetry import logs

BODY = {"prompt": "a boat", "width": 256, "height": 256, "steps": 2}
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
OPENMETRICS = {"Accept": "application/openmetrics-text; version=1.0.0"}


def value(client, name: str, **labels: str) -> Any:
    return client.app[METRICS].registry.get_sample_value(name, labels)


def answered(lines: Any, event: str = "request_answered") -> Any:
    (line,) = [line for line in lines if line["event"] == event]
    return line


def test_the_stack_is_in_one_place_and_in_this_order():
    """The id comes first, so that every line has it; the doors come before the body is read."""
    names = [getattr(middleware, "__name__", "") for middleware in middlewares.STACK]
    expected = [
        "request_ids",
        "trace",
        "access_log",
        "measurement",
        "errors",
        "known_host",
        "preflight",
        "authentication",
        "rate",
        "deadline",
        "validation_middleware",
    ]
    assert expected == names


@pytest.mark.parametrize("given", ["a", "7f1c-9a52_x.1", "A" * 128])
async def test_a_sane_request_id_is_taken_over(client, given):
    """A client, or a proxy in front, can name its requests."""
    async with client.get("/health", headers={"X-Request-ID": given}) as answer:
        assert given == answer.headers["X-Request-ID"]


@pytest.mark.parametrize("given", ["", " ", "A" * 129, "a b", "a;b", "ä", "${jndi}", "a/b"])
async def test_any_other_request_id_is_replaced(client, given):
    """What could break a log line or a query is not taken over."""
    async with client.get("/health", headers={"X-Request-ID": given}) as answer:
        assert re.fullmatch("[0-9a-f]{32}", answer.headers["X-Request-ID"])


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/nothing"), ("PUT", "/generate"), ("GET", "/docs"), ("GET", "/metrics")],
)
async def test_every_answer_has_an_id_and_hides_what_serves_it(client, method, path):
    """Errors and pages are no exceptions."""
    async with client.request(method, path) as answer:
        assert (
            answer.headers["Server"],
            answer.headers["X-Content-Type-Options"],
        ) == ("sd-api", "nosniff")
        assert answer.headers["X-Request-ID"]


async def test_two_requests_get_two_ids(client):
    """An id finds one request."""
    ids = set()
    for _ in range(2):
        async with client.get("/health") as answer:
            ids.add(answer.headers["X-Request-ID"])
    assert len(ids) == 2


async def test_each_answer_is_one_line_in_the_log(client):
    """Method, route, status, time, and the error's code where there is one."""
    with capture_logs() as lines:
        async with client.post("/generate", json={}):
            pass
    line = answered(lines)
    assert line.pop("seconds") >= 0
    expected = {
        "event": "request_answered",
        "log_level": "info",
        "method": "POST",
        "route": "/generate",
        "status": 400,
        "error": "validation_error",
    }
    assert expected == line


async def test_what_machines_ask_all_the_time_is_logged_at_debug(client):
    """A probe every few seconds would bury the rest."""
    with capture_logs() as lines:
        for path in ("/health", "/health/live", "/health/ready", "/metrics"):
            async with client.get(path):
                pass
    assert [line["log_level"] for line in lines] == ["debug"] * 4


async def test_a_failed_probe_is_logged_like_any_other_error(serve):
    """A service that is not ready is worth a line."""
    client = await serve(FakeEngine(loads=False))
    with capture_logs() as lines:
        async with client.get("/health/ready"):
            pass
    assert (answered(lines)["log_level"], answered(lines)["status"]) == ("info", 503)


async def test_an_error_of_ours_is_logged_with_its_traceback(client, monkeypatch):
    """What the client is not told is in the log, under the same id."""

    def submit(_job):
        raise RuntimeError("secret")

    monkeypatch.setattr(client.app[CONSUMER], "submit", submit)
    with capture_logs() as lines:
        async with client.post("/generate", json=BODY):
            pass
    line = answered(lines, "request_failed")
    assert (line["exc_info"], line["log_level"]) == (True, "error")


async def test_answers_are_counted_by_route_template(client):
    """Raw paths and made-up methods would each make a series."""
    async with client.get("/docs/swagger-ui.css"):
        pass
    async with client.get("/a/path/that/only/one/client/knows"):
        pass
    async with client.request("PROPFIND", "/health"):
        pass
    name = "sd_http_requests_total"
    assert value(client, name, route="/docs/{name}", method="GET", status="200") == 1
    assert value(client, name, route="unmatched", method="GET", status="404") == 1
    assert value(client, name, route="unmatched", method="other", status="405") == 1


async def test_the_time_to_answer_is_measured_and_nothing_stays_in_flight(client):
    """One observation per answer; the gauge comes back to 0."""
    async with client.post("/generate", json=BODY):
        pass
    count = "sd_http_request_duration_seconds_count"
    assert value(client, count, route="/generate", method="POST") == 1
    assert value(client, "sd_http_requests_in_flight") == 0


async def test_an_exemplar_leads_from_a_bucket_to_a_request(client):
    """OpenMetrics carries the request id; an id too long for it is left out."""
    for request_id in ("find-me", "B" * 128):
        async with client.post("/generate", json=BODY, headers={"X-Request-ID": request_id}):
            pass
    async with client.get("/metrics", headers=OPENMETRICS) as answer:
        text = await answer.text()
    assert 'request_id="find-me"' in text
    assert "B" * 128 not in text


@pytest.mark.parametrize(
    "name", ["sd_http_request_duration_seconds", "sd_job_duration_seconds", "sd_stage_duration"]
)
async def test_an_exemplar_leads_to_the_trace_of_the_caller(client, name):
    """Of the request, of its job and of its stages."""
    headers = {**TRACEPARENT, "X-Request-ID": "mine"}
    async with client.post("/generate", json=BODY, headers=headers):
        pass
    async with client.get("/metrics", headers=OPENMETRICS) as answer:
        lines = [line for line in (await answer.text()).splitlines() if line.startswith(name)]
    expected = f'# {{request_id="mine",trace_id="{TRACE}"}}'
    assert any(expected in line for line in lines)


async def test_every_line_of_a_request_carries_the_trace_of_its_caller(client, capsys):
    """From the access log to the end of the job."""
    logs.configure(Config(log_format="json"))
    async with client.post("/generate", json=BODY, headers=TRACEPARENT):
        pass
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    events = {line["event"] for line in lines if line.get("trace_id") == TRACE}
    assert {"job_queued", "job_started", "job_ended", "request_answered"} <= events


@pytest.mark.parametrize("headers", [{}, {"traceparent": f"00-{'0' * 32}-00f067aa0ba902b7-01"}])
async def test_no_trace_is_invented(client, capsys, headers):
    """A request without one, or with a broken one, has a request id only."""
    logs.configure(Config(log_format="json"))
    async with client.post("/generate", json=BODY, headers=headers) as answer:
        assert answer.status == 200
    assert "trace_id" not in capsys.readouterr().err
    async with client.get("/metrics", headers=OPENMETRICS) as answer:
        assert "trace_id" not in await answer.text()


@pytest.mark.parametrize(
    "sent",
    [
        {"json": {}},
        {"data": "{", "headers": {"Content-Type": "application/json"}},
        {"data": "a cat", "headers": {"Content-Type": "text/plain"}},
        {"data": b" " * 100_000, "headers": {"Content-Type": "application/json"}},
        {"json": BODY, "headers": {"Accept": "image/gif"}},
    ],
)
async def test_a_refused_request_is_counted_by_its_reason(client, sent):
    """What no state of the service could have answered is refused at the door."""
    async with client.post("/generate", **sent) as answer:
        assert 400 <= answer.status < 500
    assert value(client, "sd_requests_refused_total", reason="validation") == 1


async def test_a_client_that_hangs_up_is_counted_and_logged_as_499(serve):
    """Nobody reads the answer, so there is none; the line says that it was abandoned."""
    engine = FakeEngine(step_seconds=None)
    client = await serve(engine)
    with capture_logs() as lines:
        asked = asyncio.create_task(client.post("/generate", json=BODY))
        await engine.jobs(1)
        asked.cancel()
        await engine.jobs(0)
    assert answered(lines, "request_abandoned")["status"] == 499
    name = "sd_http_requests_total"
    assert value(client, name, route="/generate", method="POST", status="499") == 1
    assert value(client, "sd_http_requests_in_flight") == 0


@pytest.mark.parametrize(("connected", "status"), [(True, "500"), (False, "499")])
async def test_a_broken_connection_is_the_clients_only_if_the_client_is_gone(
    client, monkeypatch, connected, status
):
    """A pipe of our own that breaks is an error of ours."""

    def submit(_job):
        if not connected:
            monkeypatch.setattr(web.BaseRequest, "transport", None)
        raise ConnectionResetError

    monkeypatch.setattr(client.app[CONSUMER], "submit", submit)
    with contextlib.suppress(aiohttp.ServerDisconnectedError):
        async with client.post("/generate", json=BODY):
            pass
    monkeypatch.undo()
    name = "sd_http_requests_total"
    assert value(client, name, route="/generate", method="POST", status=status) == 1


async def test_options_says_what_a_route_allows(client):
    """204 with Allow, for those who ask first."""
    async with client.options("/generate") as answer:
        assert (answer.status, answer.headers["Allow"]) == (204, "OPTIONS, POST")


async def test_a_body_that_comes_too_slowly_ends_like_any_late_request(serve):
    """The deadline counts from the first line, not from the last byte."""
    client = await serve(request_timeout_seconds=0.01)
    never = asyncio.Event()

    async def body():
        yield b"{"
        await never.wait()

    async with client.post(
        "/generate", data=body(), headers={"Content-Type": "application/json"}
    ) as answer:
        assert answer.status == 408
