"""Which pages of other origins may use the service from a browser."""

import pytest

from service import config
from service.addresses import Hosts, Origins
from service.credentials import Keys
from service.errors import ConfigError
from service.http.keys import METRICS

ALICE = "5f0c2f8e9f1b4b7f8d3a61c9e2b7d405"
OURS = "https://pictures.example"
EVIL = "https://evil.example"
BODY = {"prompt": "a boat", "width": 256, "height": 256, "steps": 1}
ASKS = {
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,content-type",
}
EVERY_EVIL = [
    EVIL,
    "https://pictures.example.evil.example",
    "http://pictures.example",
    "https://pictures.example:444",
    "https://xpictures.example",
    "null",
    "",
]


def cors(answer) -> dict[str, str]:
    return {k: v for k, v in answer.headers.items() if k.startswith("Access-Control")}


async def test_no_page_may_unless_it_is_listed(client):
    """CORS is off."""
    for method, more in (("GET", {}), ("OPTIONS", ASKS)):
        async with client.request(method, "/health", headers={"Origin": OURS, **more}) as answer:
            assert (cors(answer), answer.headers.get("Vary")) == ({}, None)


async def test_a_listed_origin_may_ask_before_it_sends(serve):
    """Without a key: the browser sends none with this question."""
    client = await serve(api_keys=Keys(f"alice:{ALICE}"), cors_origins=Origins(OURS))
    async with client.options("/generate", headers={"Origin": OURS, **ASKS}) as answer:
        found = cors(answer)
    assert (answer.status, answer.headers["Vary"]) == (204, "Origin")
    assert found["Access-Control-Allow-Origin"] == OURS
    assert "POST" in found["Access-Control-Allow-Methods"].split(", ")
    allowed = found["Access-Control-Allow-Headers"].lower().split(", ")
    assert {"authorization", "x-api-key", "content-type"} <= set(allowed)
    assert found["Access-Control-Max-Age"] == "600"
    assert "Access-Control-Allow-Credentials" not in found


async def test_a_listed_origin_may_read_answers_and_errors(serve):
    """Headers included; caches are told that answers differ by origin."""
    client = await serve(api_keys=Keys(f"alice:{ALICE}"), cors_origins=Origins(OURS))
    origin = {"Origin": OURS}
    async with client.post("/generate", json=BODY, headers=origin) as answer:
        assert (answer.status, cors(answer)["Access-Control-Allow-Origin"]) == (401, OURS)
    headers = {**origin, "X-API-Key": ALICE}
    async with client.post("/generate", json=BODY, headers=headers) as answer:
        assert (answer.status, answer.headers["Vary"]) == (200, "Accept, Origin")
        assert "X-Request-ID" in cors(answer)["Access-Control-Expose-Headers"]


@pytest.mark.parametrize("origin", EVERY_EVIL)
async def test_no_other_origin_is_reflected(serve, origin):
    """Not one that begins or ends like a listed one, nor null."""
    client = await serve(cors_origins=Origins(OURS))
    for method, more in (("GET", {}), ("OPTIONS", ASKS)):
        async with client.request(method, "/health", headers={"Origin": origin, **more}) as answer:
            assert (cors(answer), answer.headers["Vary"]) == ({}, "Origin")


async def test_a_star_is_for_services_without_keys(serve):
    """Then it is a star, and no reflection."""
    client = await serve(cors_origins=Origins("*"))
    async with client.get("/health", headers={"Origin": EVIL}) as answer:
        assert cors(answer)["Access-Control-Allow-Origin"] == "*"
        assert "Vary" not in answer.headers
    with pytest.raises(ConfigError, match="not with keys"):
        config.load({"CORS_ORIGINS": "*", "API_KEYS": f"alice:{ALICE}"})


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"]
)
async def test_what_a_form_can_send_makes_no_picture(client, kind):
    """JSON takes a preflight, and no other type is read."""
    headers = {"Origin": EVIL, "Content-Type": kind}
    async with client.post("/generate", data=b'{"prompt": "a boat"}', headers=headers) as answer:
        assert answer.status == 415
    async with client.options("/generate", headers={"Origin": EVIL, **ASKS}) as answer:
        assert cors(answer) == {}


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", 200),
        ("LOCALHOST:1234", 200),
        ("127.0.0.1:8000", 200),
        ("127.1.2.3", 200),
        ("[::1]:8000", 200),
        ("evil.example", 403),
        ("evil.example:8000", 403),
        ("localhost.evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("192.168.0.7", 403),
        ("", 403),
    ],
)
async def test_a_page_cannot_call_a_local_service_by_its_own_name(client, host, expected):
    """DNS rebinding: the address is ours, and the name is not."""
    for path in ("/health", "/metrics", "/nothing"):
        async with client.get(path, headers={"Host": host}) as answer:
            assert (answer.status == 403) is (expected == 403)
    refused = client.app[METRICS].registry.get_sample_value(
        "sd_requests_refused_total", {"reason": "host"}
    )
    assert refused == (3 if expected == 403 else 0)


async def test_other_names_can_be_allowed(serve):
    """Of a proxy on the same machine, say."""
    client = await serve(allowed_hosts=Hosts("gpu.lan"))
    for host, expected in (("gpu.lan", 200), ("GPU.lan.:80", 200), ("evil.example", 403)):
        async with client.get("/health", headers={"Host": host}) as answer:
            assert answer.status == expected


async def test_a_service_with_keys_may_be_called_by_any_name(serve):
    """A page that rebinds its name has no key; with ALLOWED_HOSTS the name counts all the same."""
    open_name = await serve(api_keys=Keys(f"alice:{ALICE}"))
    fixed = await serve(api_keys=Keys(f"alice:{ALICE}"), allowed_hosts=Hosts("gpu.lan"))
    for client, expected in ((open_name, 200), (fixed, 403)):
        async with client.get("/health", headers={"Host": "evil.example"}) as answer:
            assert answer.status == expected
