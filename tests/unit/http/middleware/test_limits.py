"""What a caller may still ask for."""

import asyncio
from typing import Any

import pytest

from service.access.allowance import Allowance
from service.config.credentials import Keys
from service.http.state import ALLOWANCE, DISPATCHER, METRICS
from tests.support.simulation.fake_engine import FakeEngine

ALICE = "5f0c2f8e9f1b4b7f8d3a61c9e2b7d405"
BOB = "2b7d4055f0c2f8e9f1b4b7f8d3a61c9e"
BODY: dict[str, Any] = {"prompt": "a boat", "width": 256, "height": 256, "steps": 2}
KEYS = Keys(f"alice:{ALICE},bob:{BOB} rate=0 images=0")


def headers(secret: str = ALICE) -> dict[str, str]:
    return {"X-API-Key": secret}


async def post(client, secret: str = ALICE, **more: Any) -> tuple[int, Any]:
    async with client.post("/generate", json={**BODY, **more}, headers=headers(secret)) as answer:
        await answer.read()
        return int(answer.status), answer.headers


def images_left(client) -> int:
    allowance: Allowance = client.app[ALLOWANCE]
    return 10 - sum(slot.images for slot in allowance._used["alice"]._slots)


async def test_too_many_requests_are_told_when_to_come_back(serve):
    """429 as a problem, counted as rate; other keys are not touched, reading is free."""
    client = await serve(api_keys=KEYS, rate_limit_per_minute=1, rate_limit_burst=2)
    found = [(await post(client))[0] for _ in range(2)]
    async with client.post("/generate", json=BODY, headers=headers()) as answer:
        body = await answer.json(content_type=None)
    assert [*found, answer.status] == [200, 200, 429]
    assert (answer.content_type, body["code"]) == ("application/problem+json", "rate_limited")
    assert 1 <= int(answer.headers["Retry-After"]) <= 60
    registry = client.app[METRICS].registry
    assert (
        registry.get_sample_value("sd_requests_refused_total", {"api": "native", "reason": "rate"})
        == 1
    )
    assert [(await post(client, BOB))[0] for _ in range(5)] == [200] * 5
    async with client.get("/health", headers=headers()) as answer:
        assert answer.status == 200


async def test_the_wait_that_is_told_proves_right(serve, monkeypatch):
    """Who comes back after Retry-After gets in; a second earlier it would not."""
    client = await serve(api_keys=KEYS, rate_limit_per_minute=7, rate_limit_burst=1)
    now = 0.0
    monkeypatch.setattr(client.app[ALLOWANCE], "_clock", lambda: now)
    assert (await post(client))[0] == 200
    found, answered = await post(client)
    assert found == 429
    now += int(answered["Retry-After"]) - 1
    assert (await post(client))[0] == 429
    now += 1
    assert (await post(client))[0] == 200


async def test_what_is_left_is_in_the_headers(serve):
    """Limit, rest and reset, for requests and images; none for a key without limits."""
    client = await serve(
        api_keys=KEYS, rate_limit_per_minute=1, rate_limit_burst=3, quota_images_per_day=10
    )
    _, answered = await post(client, num_images=4)
    left = {k: v for k, v in answered.items() if k.startswith("X-RateLimit")}
    reset = [int(left.pop(f"X-RateLimit-Reset-{kind}")) for kind in ("Requests", "Images")]
    assert left == {
        "X-RateLimit-Limit-Requests": "3",
        "X-RateLimit-Remaining-Requests": "2",
        "X-RateLimit-Limit-Images": "10",
        "X-RateLimit-Remaining-Images": "6",
    }
    assert 59 <= reset[0] <= 60
    assert 86_400 <= reset[1] <= 86_460
    _, answered = await post(client, BOB)
    assert [k for k in answered if k.startswith("X-RateLimit")] == []


async def test_a_quota_ends_with_429(serve):
    """With the time after which the oldest images count no more."""
    client = await serve(api_keys=KEYS, quota_images_per_day=5)
    assert (await post(client, num_images=4))[0] == 200
    found, answered = await post(client, num_images=2)
    assert (found, 86_000 < int(answered["Retry-After"]) <= 86_460) == (429, True)
    assert (await post(client, num_images=1))[0] == 200
    assert (await post(client, BOB, num_images=4))[0] == 200


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"num_images": 99}])
async def test_a_wrong_request_costs_no_images(serve, wrong):
    """They are charged once the body is checked."""
    client = await serve(api_keys=KEYS, quota_images_per_day=10)
    assert (await post(client, **wrong))[0] == 400
    assert images_left(client) == 10


async def test_images_that_were_not_made_are_given_back(serve):
    """A failed job costs nothing."""
    engine = FakeEngine(step_seconds=None)
    client = await serve(engine, api_keys=KEYS, quota_images_per_day=10)
    asked = asyncio.create_task(post(client, num_images=3))
    await engine.jobs(1)
    assert images_left(client) == 7
    engine.fail("generation_failed", "NaN")
    assert (await asked)[0] == 500
    assert images_left(client) == 10


async def test_a_refused_job_is_not_charged(serve):
    """By a full queue, or a service that ends."""
    client = await serve(api_keys=KEYS, quota_images_per_day=10)
    client.app[DISPATCHER].drain()
    assert (await post(client, num_images=3))[0] == 503
    assert images_left(client) == 10


@pytest.mark.parametrize(("steps", "left"), [(0, 10), (1, 7)])
async def test_hanging_up_pays_for_work_that_was_done(serve, steps, left, queued):
    """Or the GPU could be had for nothing, by hanging up before each last step."""
    engine = FakeEngine(step_seconds=None, loads=bool(steps))
    client = await serve(engine, api_keys=KEYS, quota_images_per_day=10)
    asked = asyncio.create_task(post(client, num_images=3))
    if steps:
        await engine.jobs(1)
        await engine.step()
    else:
        await queued(client, 1)
    asked.cancel()
    if steps:
        await engine.jobs(0)
    else:
        await queued(client, 0)
    assert images_left(client) == left


async def test_without_keys_all_callers_share_one_allowance(serve):
    """It protects the GPU; nobody can be told from another."""
    client = await serve(rate_limit_per_minute=1, rate_limit_burst=1)
    async with client.post("/generate", json=BODY) as answer:
        assert answer.status == 200
    async with client.post("/generate", json=BODY) as answer:
        assert answer.status == 429


async def test_sub_prompts_count_against_the_quota(serve):
    """An image with AND costs what its rows in the batch cost."""
    client = await serve(api_keys=KEYS, quota_images_per_day=10)
    composed = {"prompt": "a AND b AND c AND d", "prompt_syntax": "a1111"}
    assert (await post(client, num_images=2, **composed))[0] == 200
    assert images_left(client) == 5  # Ten rows: four sub-prompts and the negative one, twice.
