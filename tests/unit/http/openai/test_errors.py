"""Errors of the OpenAI API."""

import asyncio
import json

import pytest

from service import errors
from service.config.credentials import Keys
from service.errors import KINDS, ConfigError, ServiceError, ValidationFailed
from service.http.openai.errors import body, render
from service.http.route import ErrorFacts
from tests.support.simulation.fake_engine import FakeEngine

FACTS = ErrorFacts(instance="/v1/images/generations", request_id="r", prefix="")
KEY = "0123456789abcdef" * 2
PATH = "/v1/images/generations"


@pytest.mark.parametrize(
    ("error", "kind", "code", "retry"),
    [
        (errors.Unauthorized(), "invalid_request_error", "invalid_api_key", None),
        (errors.RateLimited(), "rate_limit_error", "rate_limit_exceeded", None),
        (errors.QuotaExceeded(), "insufficient_quota", "insufficient_quota", "false"),
        (errors.TooManyFailures(), "rate_limit_error", "too_many_failures", "false"),
        (errors.RequestTimedOut(), "timeout", "timeout", "false"),
        (errors.QueueFull(), "server_error", "queue_full", None),
        (errors.ShuttingDown(), "server_error", "shutting_down", None),
        (errors.OutOfMemory(), "server_error", "out_of_memory", None),
        (errors.EngineCrashed(), "server_error", "engine_crashed", "false"),
        (errors.GenerationFailed(), "server_error", "generation_failed", "false"),
        (errors.IdempotencyConflict(), "invalid_request_error", "idempotency_conflict", "false"),
        (errors.CrossOrigin(), "permission_error", "cross_origin", None),
    ],
)
def test_an_error_says_whether_sending_again_may_help(error, kind, code, retry):
    """The packages send 408, 409, 429 and 5xx again by themselves, unless they are told not to."""
    answer = render(error, FACTS)
    assert (answer.status, answer.content_type) == (error.status, "application/json")
    found = json.loads(answer.text or "")["error"]
    assert (found["type"], found["code"], found["param"]) == (kind, code, None)
    assert answer.headers.get("x-should-retry") == retry


def test_every_error_has_the_form():
    """The four fields, and a message."""
    for kind in KINDS.values():
        if issubclass(kind, ConfigError):
            continue
        error: ServiceError = (
            kind({"size": ["no"]}) if issubclass(kind, ValidationFailed) else kind()
        )
        found = body(error)["error"]
        assert found.keys() == {"message", "type", "param", "code"}
        assert found["message"]


async def test_a_missing_key_is_an_error_of_this_form(serve):
    """401, with the scheme."""
    client = await serve(api_keys=Keys(f"anna:{KEY}"))
    for headers in ({}, {"Authorization": "Bearer wrong"}):
        async with client.post(PATH, json={"prompt": "a"}, headers=headers) as answer:
            assert answer.status == 401
            assert answer.headers["WWW-Authenticate"].startswith("Bearer")
            assert (await answer.json())["error"]["code"] == "invalid_api_key"
            assert answer.headers["x-request-id"]
    bearer = {"Authorization": f"Bearer {KEY}"}
    async with client.post(PATH, json={"prompt": "a"}, headers=bearer) as answer:
        assert answer.status == 200


async def test_a_deadline_is_not_tried_again(serve):
    """Else the packages would make the image three times."""
    client = await serve(FakeEngine(step_seconds=None), request_timeout_seconds=0.05)
    async with client.post(PATH, json={"prompt": "a"}) as answer:
        assert (answer.status, answer.headers["x-should-retry"]) == (408, "false")


async def test_a_full_queue_says_when(serve, queued):
    """503 with Retry-After, which the packages honour."""
    engine = FakeEngine(step_seconds=None)
    client = await serve(engine, queue_size=1, max_concurrent_requests=1)

    async def ask():
        async with client.post(PATH, json={"prompt": "a"}) as answer:
            return answer.status

    first = asyncio.create_task(ask())
    await engine.jobs(1)
    second = asyncio.create_task(ask())
    await queued(client, 1)
    async with client.post(PATH, json={"prompt": "a"}) as answer:
        assert (answer.status, (await answer.json())["error"]["code"]) == (503, "queue_full")
        assert int(answer.headers["Retry-After"]) > 0
        assert "x-should-retry" not in answer.headers
    for each in (first, second):
        each.cancel()
    await asyncio.gather(first, second, return_exceptions=True)
