"""The log line and the metrics of each answer."""

import asyncio
from typing import Any

import pytest
from structlog.testing import capture_logs

from service.http.state import DISPATCHER, METRICS
from tests.support.samples import sample
from tests.support.simulation.fake_engine import FakeEngine

BODY = {"prompt": "a boat", "width": 256, "height": 256, "steps": 2}
OPENMETRICS = {"Accept": "application/openmetrics-text; version=1.0.0"}


def value(client, name: str, **labels: str) -> Any:
    return sample(client.app[METRICS], name, **labels)


def answered(lines: Any, event: str = "request_answered") -> Any:
    (line,) = [line for line in lines if line["event"] == event]
    return line


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


async def test_a_failed_probe_is_logged_once(serve):
    """A service that is not ready is worth a line, and again when it was ready in between."""
    engine = FakeEngine(loads=False)
    client = await serve(engine)

    async def probed(times: int) -> list[tuple[str, int]]:
        with capture_logs() as lines:
            for _ in range(times):
                async with client.get("/health/ready"), client.get("/health/live"):
                    pass
        return [
            (line["log_level"], line["status"])
            for line in lines
            if line["event"] == "request_answered" and line["route"] == "/health/ready"
        ]

    assert await probed(3) == [("info", 503), ("debug", 503), ("debug", 503)]
    engine.become_ready()
    assert await probed(1) == [("debug", 200)]
    client.app[DISPATCHER].admission.draining = True
    assert await probed(2) == [("info", 503), ("debug", 503)]


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


@pytest.mark.parametrize(
    ("given", "label"), [("page", "page"), ("CLI", "cli"), ("sdapi", "native"), ("x", "native")]
)
async def test_some_clients_of_the_native_api_are_counted_apart(client, given, label):
    """The page and the command line, in requests and jobs; others choose no label."""
    headers = {"X-Client": given}
    async with client.post("/generate", json={"prompt": "a cat"}, headers=headers) as answer:
        assert answer.status == 200
    read = client.app[METRICS].registry.get_sample_value
    route = {"route": "/generate", "method": "POST", "status": "200"}
    assert read("sd_http_requests_total", {"api": label, **route}) == 1
    assert read("sd_jobs_total", {"api": label, "outcome": "succeeded", "code": ""}) == 1
