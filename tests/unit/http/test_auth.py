"""Who asks: keys at the door."""

import asyncio
import os
from typing import Any

import pytest
from aiohttp import hdrs
from structlog.testing import capture_logs

from service.addresses import Networks
from service.credentials import Keys, Token
from service.engine.fake import FakeEngine
from service.http import auth
from service.http.keys import METRICS

ALICE = "5f0c2f8e9f1b4b7f8d3a61c9e2b7d405"
BOB = "2b7d4055f0c2f8e9f1b4b7f8d3a61c9e"
WRONG = "0123456789abcdef0123456789abcdef"
KEYS = Keys(f"alice:{ALICE},bob:{BOB}")
BODY = {"prompt": "a boat", "width": 256, "height": 256, "steps": 1}
MEMBERS = {"type", "title", "status", "detail", "instance", "code", "request_id"}


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


async def status(client, path: str = "/generate", headers: Any = None, method: str = "POST") -> int:
    body = BODY if method == "POST" else None
    async with client.request(method, path, json=body, headers=headers) as answer:
        await answer.read()
        return int(answer.status)


def value(client, name: str, **labels: str) -> Any:
    return client.app[METRICS].registry.get_sample_value(name, labels)


@pytest.mark.parametrize(
    "headers",
    [
        bearer(ALICE),
        {"Authorization": f"bearer  {ALICE}"},
        {"X-API-Key": ALICE},
        {"X-API-Key": ALICE, **bearer(ALICE)},
    ],
)
async def test_a_key_opens(serve, headers):
    """In either header, or the same in both."""
    client = await serve(api_keys=KEYS)
    assert await status(client, headers=headers) == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        bearer(WRONG),
        bearer(""),
        bearer("alice"),
        bearer(f"alice:{ALICE}"),
        {"Authorization": f"Basic {ALICE}"},
        {"Authorization": ALICE},
        {"X-API-Key": ""},
        {"X-API-Key": BOB, **bearer(ALICE)},
        {"X-API-Key": ALICE, "Authorization": f"Basic {ALICE}"},
        [("X-API-Key", ALICE), ("X-API-Key", BOB)],
        [("X-API-Key", "\udcff")],
    ],
)
async def test_everything_else_is_answered_alike(serve, headers):
    """401 with the challenge; nothing tells a wrong key from a missing one."""
    client = await serve(api_keys=KEYS)
    async with client.post("/generate", json=BODY, headers=headers) as answer:
        body = await answer.json(content_type=None)
    assert (answer.status, body["code"]) == (401, "unauthorized")
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="sd-api"'
    assert body.keys() == MEMBERS
    assert body["detail"] == (
        "Send a valid key as Authorization: Bearer KEY, or as X-API-Key: KEY."
    )
    assert value(client, "sd_requests_refused_total", reason="auth") == 1
    assert value(client, "sd_jobs_accepted_total", sampler="dpmpp_2m") is None


async def test_a_refused_body_is_not_read(serve):
    """What a stranger sends costs nothing: not even the type is looked at."""
    client = await serve(api_keys=KEYS)
    async with client.post("/generate", data=b"x" * 60_000) as answer:
        assert answer.status == 401


async def test_without_keys_everybody_may_come_in(client):
    """Whatever credentials a client brings along."""
    assert await status(client, headers=bearer(WRONG)) == 200


async def test_every_route_is_closed_unless_it_is_listed(serve):
    """A route that is added needs a key until somebody decides otherwise."""
    client = await serve(api_keys=KEYS)
    found = set()
    for route in client.app.router.routes():
        template = route.resource.canonical
        path = template.replace("{name}", "swagger-ui.css").replace("{", "").replace("}", "")
        async with client.request(route.method, path, allow_redirects=False) as answer:
            if answer.status != 401:
                found.add(template)
    assert found == auth.OPEN | {"/metrics"}


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/nothing"), ("GET", "/generate"), ("DELETE", "/health"), ("OPTIONS", "/generate")],
)
async def test_what_is_there_is_no_strangers_business(serve, method, path):
    """No 404 and no 405 without a key."""
    client = await serve(api_keys=KEYS)
    assert await status(client, path, method=method) == 401
    assert await status(client, path, bearer(ALICE), method) != 401


async def test_health_tells_strangers_less(serve):
    """The state yes; the model, its device and its troubles only to those with a key."""
    engine = FakeEngine()
    client = await serve(engine, api_keys=KEYS)
    async with client.get("/health") as answer:
        assert ((await answer.json())["status"], (await answer.json())["model"]) == (
            "healthy",
            None,
        )
    async with client.get("/health", headers=bearer(ALICE)) as answer:
        assert (await answer.json())["model"]["id"] == "fake"
    assert await status(client, "/health", bearer(WRONG), "GET") == 401
    engine.fail_to_load("/home/alice/models has no UNet.")
    for path in ("/health", "/health/ready"):
        async with client.get(path) as answer:
            assert "/home/alice" not in await answer.text()
    async with client.get("/health", headers=bearer(ALICE)) as answer:
        assert "/home/alice" in await answer.text()


async def test_metrics_can_need_a_token_of_their_own(serve):
    """Keys do not open them, nor does the token open anything else."""
    client = await serve(api_keys=KEYS, metrics_token=Token(WRONG))
    headers = [None, bearer(ALICE), {"X-API-Key": WRONG}, bearer(WRONG)]
    assert [await status(client, "/metrics", h, "GET") for h in headers] == [401, 401, 401, 200]
    assert await status(client, headers=bearer(WRONG)) == 401


async def test_metrics_are_open_without_a_token(serve):
    """As Prometheus finds them everywhere."""
    client = await serve(api_keys=KEYS)
    assert await status(client, "/metrics", method="GET") == 200


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


async def test_guessing_metrics_and_health_is_slowed_too(serve):
    """No route is an oracle."""
    client = await serve(api_keys=KEYS, metrics_token=Token(WRONG), auth_failures_per_minute=2)
    assert await status(client, "/metrics", bearer(ALICE), "GET") == 401
    assert await status(client, "/health", bearer(WRONG), "GET") == 401
    assert await status(client, "/metrics", bearer(WRONG), "GET") == 429
    assert await status(client, "/health", bearer(ALICE), "GET") == 429


async def test_whoever_has_been_let_in_before_is_not_locked_out(serve):
    """By somebody else behind the same address."""
    client = await serve(api_keys=KEYS, auth_failures_per_minute=1)
    assert await status(client, headers=bearer(ALICE)) == 200
    assert await status(client, headers=bearer(WRONG)) == 401
    assert await status(client, headers=bearer(ALICE)) == 200
    assert await status(client, headers=bearer(BOB)) == 429


@pytest.mark.parametrize(("trusted", "expected"), [("", 429), ("127.0.0.0/8", 401)])
async def test_a_forwarded_address_is_believed_of_a_trusted_proxy_only(serve, trusted, expected):
    """Or everybody could guess from a new address each time, or lock another one out."""
    client = await serve(
        api_keys=KEYS, auth_failures_per_minute=1, trusted_proxies=Networks(trusted)
    )
    for last in range(2):
        found = await status(
            client, headers={**bearer(WRONG), "X-Forwarded-For": f"198.51.100.{last}"}
        )
    assert found == expected


async def test_a_request_without_a_key_is_no_guess(serve):
    """A browser that looks around, or a monitor, does not lock its network out."""
    client = await serve(api_keys=KEYS, auth_failures_per_minute=1)
    assert [await status(client) for _ in range(5)] == [401] * 5
    assert await status(client, headers=bearer(ALICE)) == 200


async def test_jobs_are_counted_by_the_name_of_their_key(serve):
    """Known names from 0, and nothing for strangers."""
    client = await serve(api_keys=KEYS)
    assert value(client, "sd_key_jobs_total", key="bob", outcome="succeeded") == 0
    await status(client, headers=bearer(ALICE))
    await status(client, headers=bearer(WRONG))
    assert value(client, "sd_key_jobs_total", key="alice", outcome="succeeded") == 1
    assert value(client, "sd_key_images_total", key="alice") == 1
    assert (value(client, "sd_key_gpu_seconds_total", key="alice") or 0) >= 0
    assert value(client, "sd_key_images_total", key="anonymous") is None


async def test_secrets_are_in_no_log_no_answer_and_no_metric(serve, caplog):
    """Whatever is done with them."""
    client = await serve(api_keys=KEYS, metrics_token=Token(WRONG), auth_failures_per_minute=3)
    said = []
    with capture_logs() as lines:
        for secret in (ALICE, WRONG, BOB[:-1]):
            for path in ("/generate", "/health", "/metrics", "/openapi.json", "/nothing"):
                for headers in (bearer(secret), {"X-API-Key": secret}):
                    async with client.get(path, headers=headers) as answer:
                        said.append(f"{answer.headers}{await answer.text()}")
    shown = f"{said}{lines}{caplog.text}{client.app}"
    assert [s for s in (ALICE, BOB, WRONG, BOB[:-1]) if s in shown] == []


async def test_a_file_of_keys_is_followed(serve, tmp_path, monkeypatch):
    """A key that is taken out stops opening, one that is added opens, without a restart."""
    monkeypatch.setattr(auth, "REFRESH_SECONDS", 0.01)
    path = tmp_path / "keys"
    path.write_text(f"alice:{ALICE}\n")
    path.chmod(0o600)
    client = await serve(api_keys_file=str(path), auth_failures_per_minute=0)
    assert await status(client, headers=bearer(ALICE)) == 200
    path.write_text(f"bob:{BOB}\n")
    os.utime(path, ns=(1, 1))
    async with asyncio.timeout(30):
        while await status(client, headers=bearer(BOB)) != 200:
            pass
    assert await status(client, headers=bearer(ALICE)) == 401
    assert value(client, "sd_key_images_total", key="alice") is None
    assert value(client, "sd_key_images_total", key="bob") == 1


async def test_the_description_says_which_routes_want_a_key(serve):
    """So the page offers to send one."""
    client = await serve(api_keys=KEYS, metrics_token=Token(WRONG))
    async with client.get("/openapi.json") as answer:
        document = await answer.json()
    wants = {p: o.get("security") for p, v in document["paths"].items() for o in v.values()}
    assert wants["/generate"] == [{"bearer": []}, {"api_key": []}]
    assert wants["/health"] == [{}, {"bearer": []}, {"api_key": []}]
    assert wants["/metrics"] == [{"metrics_token": []}]
    assert wants["/health/ready"] is None
    assert document["components"]["securitySchemes"]["api_key"]["name"] == "X-API-Key"
    assert hdrs.AUTHORIZATION not in str(wants)
