"""Errors of requests."""

import contextlib
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from structlog.testing import capture_logs

from service import errors as service_errors
from service.errors import ServiceError
from service.http.state import DISPATCHER, METRICS
from service.telemetry.labels import REFUSALS
from tests.support.samples import sample

BODY = {"prompt": "a boat", "width": 256, "height": 256, "steps": 2}


def value(client, name: str, **labels: str) -> Any:
    return sample(client.app[METRICS], name, **labels)


def answered(lines: Any, event: str = "request_answered") -> Any:
    (line,) = [line for line in lines if line["event"] == event]
    return line


async def test_an_error_of_ours_is_logged_with_its_traceback(client, monkeypatch):
    """What the client is not told is in the log, under the same id."""

    def submit(_job):
        raise RuntimeError("secret")

    monkeypatch.setattr(client.app[DISPATCHER], "submit", submit)
    with capture_logs() as lines:
        async with client.post("/generate", json=BODY):
            pass
    line = answered(lines, "request_failed")
    assert (line["exc_info"], line["log_level"]) == (True, "error")


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
    """Requests that no state of the service could answer count as validation."""
    async with client.post("/generate", **sent) as answer:
        assert 400 <= answer.status < 500
    assert value(client, "sd_requests_refused_total", reason="validation") == 1


@pytest.mark.parametrize(("connected", "status"), [(True, "500"), (False, "499")])
async def test_a_broken_connection_is_the_clients_only_if_the_client_is_gone(
    client, monkeypatch, connected, status
):
    """A pipe of our own that breaks is an error of ours."""

    def submit(_job):
        if not connected:
            monkeypatch.setattr(web.BaseRequest, "transport", None)
        raise ConnectionResetError

    monkeypatch.setattr(client.app[DISPATCHER], "submit", submit)
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


def test_every_refusal_is_a_label_of_the_metrics():
    """Each reason has a series from the start."""
    kinds = [kind for kind in vars(service_errors).values() if isinstance(kind, type)]
    refusals = {kind.refusal for kind in kinds if issubclass(kind, ServiceError)} - {""}
    assert refusals <= {*REFUSALS}
    assert len(refusals) == 9
