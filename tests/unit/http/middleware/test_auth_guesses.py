"""Guesses at keys and at the token of the metrics: what counts as one, and how they are slowed."""

import pytest
from structlog.testing import capture_logs

from service.config.addresses import Networks
from service.config.credentials import Token
from service.http.middleware import auth
from tests.unit.http.middleware.credentials import (
    ALICE,
    BASIC,
    BOB,
    BODY,
    KEYS,
    WRONG,
    bearer,
    status,
    value,
)


@pytest.mark.parametrize(
    "headers",
    [
        bearer(WRONG),
        {"X-API-Key": WRONG},
        {"X-API-Key": WRONG, **BASIC},
        {"X-API-Key": "", **bearer(WRONG)},
        {"X-API-Key": f"Bearer {ALICE}"},
    ],
)
async def test_a_wrong_key_in_a_form_of_ours_is_a_guess(serve, headers):
    """Whatever stands next to it."""
    client = await serve(api_keys=KEYS, auth_failures_per_minute=1)
    assert await status(client, headers=headers) == 401
    assert await status(client, headers=bearer(ALICE)) == 429


async def test_several_wrong_keys_of_one_request_are_several_guesses(serve):
    """Or each request could try a hundred; beyond the first few even a right one is not seen."""
    client = await serve(api_keys=KEYS, auth_failures_per_minute=5)
    wrong = [("X-API-Key", f"{WRONG}{n}") for n in range(auth.MOST_KEYS)]
    assert await status(client, headers=[*wrong, ("X-API-Key", ALICE)]) == 401
    assert await status(client, headers=bearer(BOB)) == 200
    assert await status(client, headers=wrong[:1]) == 401
    assert await status(client, headers=bearer(ALICE)) == 429


async def test_guessing_is_slowed(serve):
    """After a few wrong keys even a right one waits, or guessing would go on."""
    client = await serve(api_keys=KEYS, auth_failures_per_minute=3)
    with capture_logs() as lines:
        assert [await status(client, headers=bearer(WRONG)) for _ in range(3)] == [401] * 3
        async with client.post("/generate", json=BODY, headers=bearer(ALICE)) as answer:
            body = await answer.json(content_type=None)
    assert (answer.status, body["code"]) == (429, "too_many_failures")
    assert 1 <= int(answer.headers["Retry-After"]) <= 20
    assert value(client, "sd_requests_refused_total", reason="auth") == 4
    (line,) = [line for line in lines if line["event"] == "keys_guessed"]
    assert (line["client"], line["log_level"]) == ("127.0.0.1", "warning")
    assert await status(client, "/health/ready", bearer(WRONG), "GET") == 200


async def test_guessing_on_health_is_slowed_too(serve):
    """No route is an oracle."""
    client = await serve(api_keys=KEYS, auth_failures_per_minute=2)
    assert await status(client, "/health", bearer(WRONG), "GET") == 401
    assert await status(client, headers=bearer(WRONG)) == 401
    assert await status(client, "/health", bearer(ALICE), "GET") == 429
    assert await status(client, headers=bearer(ALICE)) == 429


async def test_guessing_the_token_of_the_metrics_is_slowed(serve):
    """The right one waits as well, unless it has opened from there before; keys do not wait."""
    client = await serve(api_keys=KEYS, metrics_token=Token(WRONG), auth_failures_per_minute=2)
    for headers in (bearer(BOB[:-1]), bearer(ALICE)):
        assert await status(client, "/metrics", headers, "GET") == 401
    assert await status(client, "/metrics", bearer(WRONG), "GET") == 429
    assert await status(client, headers=bearer(ALICE)) == 200


async def test_guessing_keys_does_not_hide_the_metrics(serve):
    """A scraper behind the address of the one who guesses sees what is going on."""
    client = await serve(api_keys=KEYS, metrics_token=Token(WRONG), auth_failures_per_minute=1)
    assert await status(client, headers=bearer(WRONG)) == 401
    assert await status(client, headers=bearer(ALICE)) == 429
    assert await status(client, "/metrics", bearer(WRONG), "GET") == 200


async def test_whoever_has_been_let_in_before_is_not_locked_out(serve):
    """By somebody else behind the same address."""
    client = await serve(api_keys=KEYS, auth_failures_per_minute=1)
    assert await status(client, headers=bearer(ALICE)) == 200
    assert await status(client, headers=bearer(WRONG)) == 401
    assert await status(client, headers=bearer(ALICE)) == 200
    assert await status(client, headers=bearer(BOB)) == 429


@pytest.mark.parametrize("form", ["198.51.100.{}", "198.51.100.{}:1234", "[2001:db8:{}::1]:443"])
@pytest.mark.parametrize(("trusted", "expected"), [("", 429), ("127.0.0.0/8", 401)])
async def test_a_forwarded_address_is_believed_of_a_trusted_proxy_only(
    serve, trusted, expected, form
):
    """Or everybody could guess from a new address each time, or lock another one out."""
    client = await serve(
        api_keys=KEYS, auth_failures_per_minute=1, trusted_proxies=Networks(trusted)
    )
    for last in range(2):
        found = await status(
            client, headers={**bearer(WRONG), "X-Forwarded-For": form.format(last)}
        )
    assert found == expected


async def test_a_request_without_a_key_is_no_guess(serve):
    """A browser that looks around, or a monitor, does not lock its network out."""
    client = await serve(api_keys=KEYS, auth_failures_per_minute=1)
    assert [await status(client) for _ in range(5)] == [401] * 5
    assert await status(client, headers=bearer(ALICE)) == 200
