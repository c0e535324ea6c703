"""Authentication: keys and the token of the metrics."""

import asyncio
import os

import pytest
from aiohttp import hdrs
from structlog.testing import capture_logs

from service.config.credentials import Token
from service.http.middleware import auth
from service.http.route import Access
from service.http.state import ROUTES
from tests.support.simulation.fake_engine import FakeEngine
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

MEMBERS = {"type", "title", "status", "detail", "instance", "code", "request_id"}
NO_CREDENTIALS = [
    {},
    bearer(""),
    {"Authorization": ""},
    {"Authorization": "Bearer"},
    {"Authorization": ","},
    {"X-API-Key": ""},
    {"X-API-Key": " , "},
    {"X-API-Key": "", **bearer("")},
    BASIC,
    {"Authorization": f"Basic {ALICE}"},
    {"Authorization": "basic"},
    {"Authorization": "Negotiate YIIZ"},
    {"Authorization": 'Digest username="alice", realm="x", response="0"'},
    {"Authorization": f"Bearerish {WRONG}"},
    {"Authorization": ALICE},
    [("Authorization", BASIC["Authorization"]), ("Authorization", f"ApiKey {ALICE}")],
]
"""Headers that bring no key: of a proxy, of a browser that asks for a name, or empty."""


@pytest.mark.parametrize(
    "headers",
    [
        bearer(ALICE),
        {"Authorization": f"bearer  {ALICE}"},
        {"Authorization": f"BEARER {ALICE}"},
        {"Authorization": f"Bearer\t{ALICE}"},
        {"X-API-Key": ALICE},
        {"X-API-Key": ALICE, **bearer(ALICE)},
        {"X-API-Key": ALICE, **bearer("")},
        {"X-API-Key": "", **bearer(ALICE)},
        {"X-API-Key": ALICE, **BASIC},
        {"X-API-Key": ALICE, "Authorization": 'Digest username="alice", response="0"'},
        {"X-API-Key": ALICE, "Authorization": "Negotiate YIIZ"},
        {"X-API-Key": ALICE, "Authorization": "nonsense"},
        {"X-API-Key": ALICE, **bearer(WRONG)},
        {"X-API-Key": WRONG, **bearer(ALICE)},
        [("X-API-Key", WRONG), ("X-API-Key", ALICE)],
        [("X-API-Key", ALICE), ("X-API-Key", ALICE)],
        [("Authorization", BASIC["Authorization"]), ("Authorization", f"Bearer {ALICE}")],
        [("Authorization", f"Bearer {ALICE}"), ("Authorization", BASIC["Authorization"])],
        [("Authorization", f"Bearer {WRONG}"), ("Authorization", f"Bearer {ALICE}")],
        {"Authorization": f"{BASIC['Authorization']}, Bearer {ALICE}"},
        {"X-API-Key": f"{ALICE}, {ALICE}"},
    ],
)
async def test_one_known_key_opens(serve, headers):
    """In either header, whatever else a proxy or a client adds; nothing of it is a guess."""
    client = await serve(api_keys=KEYS, metrics_token=Token(WRONG), auth_failures_per_minute=1)
    assert [await status(client, headers=headers) for _ in range(2)] == [200] * 2
    assert await status(client, headers=bearer(BOB)) == 200


async def test_of_two_known_keys_that_in_x_api_key_counts(serve):
    """A gateway sends its own key as Bearer, a client its own in the header that is only ours."""
    client = await serve(api_keys=KEYS)
    assert await status(client, headers={**bearer(BOB), "X-API-Key": ALICE}) == 200
    jobs = [value(client, "sd_key_images_total", key=name) for name in ("alice", "bob")]
    assert jobs == [1, 0]


@pytest.mark.parametrize("headers", NO_CREDENTIALS)
async def test_what_is_no_key_is_no_guess(serve, headers):
    """401 as without the header, as often as it comes; and /health answers as to a stranger."""
    client = await serve(api_keys=KEYS, metrics_token=Token(WRONG), auth_failures_per_minute=1)
    for path, method, expected in (
        ("/generate", "POST", 401),
        ("/metrics", "GET", 401),
        ("/health", "GET", 200),
    ):
        found = [await status(client, path, headers, method) for _ in range(3)]
        assert found == [expected] * 3
    assert await status(client, headers=bearer(ALICE)) == 200
    assert await status(client, "/metrics", bearer(WRONG), "GET") == 200


@pytest.mark.parametrize(
    "headers",
    [
        *NO_CREDENTIALS,
        bearer(WRONG),
        bearer("alice"),
        bearer(f"alice:{ALICE}"),
        {"X-API-Key": f"Bearer {ALICE}"},
        {"X-API-Key": WRONG, **BASIC},
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
    listed = {row.path for row in client.app[ROUTES].rows if row.access is not Access.KEY}
    assert found == listed
    assert listed == {
        *("/", "/docs", "/docs/start.js", "/docs/{name}", "/openapi.json"),
        *("/health", "/health/live", "/health/ready", "/metrics", "/internal/ping"),
        *("/page/{version}/{name}", "/page/{version}/{folder}/{name}"),
        "/v1/images/{id}/{name}",
    }


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


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"bearer {WRONG}"},
        [("Authorization", BASIC["Authorization"]), ("Authorization", f"Bearer {WRONG}")],
        {"X-API-Key": ALICE, **bearer(WRONG)},
        {"X-API-Key": BOB[:-1], **bearer(WRONG)},
        {"X-API-Key": "", **bearer(WRONG)},
        [("Authorization", f"Bearer {ALICE}"), ("Authorization", f"Bearer {WRONG}")],
    ],
)
async def test_the_token_of_the_metrics_suffices(serve, headers):
    """Whatever a proxy or the configuration of the scraper adds."""
    client = await serve(api_keys=KEYS, metrics_token=Token(WRONG), auth_failures_per_minute=1)
    assert [await status(client, "/metrics", headers, "GET") for _ in range(2)] == [200] * 2


async def test_refusals_name_the_right_header_and_the_limit(serve):
    """A scraper is told of its token, and whoever has to wait of the setting that makes it."""
    client = await serve(metrics_token=Token(WRONG), auth_failures_per_minute=1)

    async def detail(headers):
        async with client.get("/metrics", headers=headers) as answer:
            return (await answer.json(content_type=None))["detail"]

    assert "METRICS_TOKEN as Authorization: Bearer" in await detail({"X-API-Key": WRONG})
    assert "METRICS_TOKEN" in await detail(bearer(ALICE))
    assert "AUTH_FAILURES_PER_MINUTE=1" in await detail(bearer(ALICE))
    assert "AUTH_FAILURES_PER_MINUTE=1" in await detail(bearer(WRONG))


async def test_metrics_are_open_without_a_token(serve):
    """As Prometheus finds them everywhere."""
    client = await serve(api_keys=KEYS)
    assert await status(client, "/metrics", method="GET") == 200


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
