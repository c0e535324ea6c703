"""The one shape of every error answer."""

import asyncio
import json
from typing import Any

import pytest
from openapi_schema_validator import OAS31Validator

from service import errors
from service.http.schema import openapi
from service.http.state import DISPATCHER
from tests.support.simulation.fake_engine import FakeEngine

MEMBERS = {"type", "title", "status", "detail", "instance", "code", "request_id"}
BODY = {"prompt": "a boat", "width": 256, "height": 256, "steps": 2}


async def checked(client, answer) -> Any:
    """Hold an error answer against everything that all of them have in common."""
    body = json.loads(await answer.read())
    assert answer.content_type == "application/problem+json"
    assert body.keys() == MEMBERS | ({"errors"} if answer.status == 400 else set())
    assert body["status"] == answer.status
    assert body["request_id"] == answer.headers["X-Request-ID"]
    assert body["instance"] == answer.url.raw_path
    description = json.loads(openapi.current(client.app))
    schema = {**description["components"]["schemas"]["Problem"], "additionalProperties": False}
    OAS31Validator(schema).validate(body)
    document, _, pointer = body["type"].partition("#/")
    assert document == "/openapi.json"
    for step in pointer.split("/"):
        description = description[step]
    return body


@pytest.mark.parametrize(
    ("method", "path", "settings", "status", "code"),
    [
        ("POST", "/generate", {"json": {}}, 400, "validation_error"),
        ("GET", "/nothing?here=1", {}, 404, "not_found"),
        ("GET", "/docs/../../etc/passwd", {}, 404, "not_found"),
        ("GET", "/docs/index.html", {}, 404, "not_found"),
        ("GET", "/generate", {}, 405, "method_not_allowed"),
        ("DELETE", "/health", {}, 405, "method_not_allowed"),
        (
            "POST",
            "/generate",
            {"json": BODY, "headers": {"Accept": "text/html"}},
            406,
            "not_acceptable",
        ),
        ("POST", "/generate", {"json": {"prompt": "x" * 70_000}}, 413, "body_too_large"),
        ("POST", "/generate", {"data": b"a boat"}, 415, "unsupported_media_type"),
    ],
)
async def test_what_clients_get_wrong_has_one_shape(
    client, method, path, *, settings, status, code
):
    """Every 4xx answer has the same members, and its type leads to its documentation."""
    async with client.request(method, path, **settings) as answer:
        body = await checked(client, answer)
    assert (status, code) == (answer.status, body["code"])


@pytest.mark.parametrize(
    ("code", "status", "title"),
    [
        ("out_of_memory", 503, "Service Unavailable: GPU memory exhausted"),
        ("generation_failed", 500, "Internal Error: the image could not be made"),
        ("internal_error", 500, "Internal Error"),
    ],
)
async def test_what_the_engine_reports_has_the_same_shape(serve, code, status, title):
    """A job's error reaches the client with its own code and the status of its class."""
    engine = FakeEngine(step_seconds=None)
    client = await serve(engine)
    asked = asyncio.create_task(client.post("/generate", json=BODY))
    await engine.jobs(1)
    engine.fail(code, "The detail.")
    async with await asked as answer:
        body = await checked(client, answer)
    assert (status, code, title, "The detail.") == (
        answer.status,
        body["code"],
        body["title"],
        body["detail"],
    )


async def test_a_full_queue_says_when_to_come_back(serve, queued):
    """503 with Retry-After in whole seconds, one or more."""
    engine = FakeEngine(loads=False)
    client = await serve(engine, queue_size=1)
    waiting = asyncio.create_task(client.post("/generate", json=BODY))
    await queued(client, 1)
    async with client.post("/generate", json=BODY) as answer:
        body = await checked(client, answer)
    assert (answer.status, body["code"]) == (503, "queue_full")
    assert int(answer.headers["Retry-After"]) >= 1
    engine.become_ready()
    assert (await waiting).status == 200


async def test_a_model_that_cannot_be_loaded_makes_requests_fail_at_once(serve):
    """503 with the reason, instead of a wait for nothing."""
    engine = FakeEngine(loads=False)
    client = await serve(engine)
    engine.fail_to_load("The folder has no UNet.")
    async with client.post("/generate", json=BODY) as answer:
        body = await checked(client, answer)
    assert (
        answer.status,
        body["code"],
        body["detail"],
    ) == (503, "model_unavailable", "The folder has no UNet.")
    assert "Retry-After" not in answer.headers


async def test_a_service_that_ends_refuses_new_work(serve):
    """503 once the shutdown has begun."""
    client = await serve()
    client.app[DISPATCHER].drain()
    async with client.post("/generate", json=BODY) as answer:
        body = await checked(client, answer)
    assert (answer.status, body["code"]) == (503, "shutting_down")


async def test_an_engine_that_keeps_crashing_fails_the_request(serve):
    """500 after as many attempts as the settings allow."""
    engine = FakeEngine(step_seconds=None)
    client = await serve(engine, max_attempts=2)
    asked = asyncio.create_task(client.post("/generate", json=BODY))
    for _ in range(2):
        await engine.jobs(1)
        engine.crash()
    async with await asked as answer:
        body = await checked(client, answer)
    assert (answer.status, body["code"]) == (500, "engine_crashed")


async def test_a_request_that_takes_too_long_ends(serve):
    """408, with the setting that says how long that is."""
    client = await serve(FakeEngine(step_seconds=None), request_timeout_seconds=0.01)
    async with client.post("/generate", json=BODY) as answer:
        body = await checked(client, answer)
    assert (answer.status, body["code"]) == (408, "timeout")
    assert "REQUEST_TIMEOUT_SECONDS" in body["detail"]


async def test_an_error_of_ours_shows_nothing_of_the_inside(serve, monkeypatch):
    """500 without the message, the type or the place of the exception."""
    client = await serve()

    def submit(_job):
        raise RuntimeError("secret")

    monkeypatch.setattr(client.app[DISPATCHER], "submit", submit)
    async with client.post("/generate", json=BODY) as answer:
        body = await checked(client, answer)
    assert (answer.status, body["code"]) == (500, "internal_error")
    assert "secret" not in json.dumps(body)
    assert "RuntimeError" not in json.dumps(body)


async def test_a_wrong_method_is_told_the_right_ones(client):
    """405 carries Allow (RFC 9110, 15.5.6)."""
    async with client.put("/health") as answer:
        assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD")


async def test_head_of_an_error_has_its_headers_only(client):
    """HEAD answers like GET, without the body."""
    async with client.head("/nothing") as answer:
        assert (
            answer.status,
            await answer.read(),
            answer.content_type,
        ) == (404, b"", "application/problem+json")


async def test_the_detail_of_a_validation_error_holds_all_of_its_messages(client):
    """A client that shows only the detail shows everything."""
    async with client.post("/generate", json={"steps": 0, "width": 100}) as answer:
        body = await checked(client, answer)
    for name, messages in body["errors"].items():
        assert f"{name}: {messages[0]}" in body["detail"]


def test_every_error_has_a_code_and_a_status_of_its_own_kind():
    """No two classes share a code: programs tell errors apart by it."""
    kinds = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.ServiceError)
    ]
    codes = [kind.code for kind in kinds]
    assert len(codes) == len(set(codes))
