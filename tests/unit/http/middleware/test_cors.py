"""Which pages of other origins may use the service from a browser."""

import json

import pytest
from aiohttp import FormData

from service.config import loading
from service.config.addresses import Hosts, Origins
from service.config.credentials import Keys
from service.errors import ConfigError
from service.http.state import METRICS

ALICE = "5f0c2f8e9f1b4b7f8d3a61c9e2b7d405"
OURS = "https://images.example"
EVIL = "https://evil.example"
BODY = {"prompt": "a boat", "width": 256, "height": 256, "steps": 1}
ASKS = {
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,content-type",
}
EVERY_EVIL = [
    EVIL,
    "https://images.example.evil.example",
    "http://images.example",
    "https://images.example:444",
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
        loading.load({"CORS_ORIGINS": "*", "API_KEYS": f"alice:{ALICE}"})


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded"])
async def test_what_a_form_can_send_makes_no_image(client, kind):
    """JSON takes a preflight, and these types are not read, whoever sends them."""
    headers = {"Content-Type": kind}
    async with client.post("/generate", data=b'{"prompt": "a boat"}', headers=headers) as answer:
        assert answer.status == 415
    async with client.options("/generate", headers={"Origin": EVIL, **ASKS}) as answer:
        assert cors(answer) == {}


@pytest.mark.parametrize("where", [{"Origin": EVIL}, {"Sec-Fetch-Site": "cross-site"}])
async def test_a_form_with_files_of_another_origin_makes_no_image(client, where):
    """It takes no preflight, but browsers say where it comes from."""
    form = FormData({"prompt": "a boat"}, default_to_multipart=True)
    async with client.post("/generate", data=form, headers=where) as answer:
        assert (answer.status, (await answer.json())["code"]) == (403, "cross_origin")
    form = FormData({"prompt": "a boat"}, default_to_multipart=True)
    async with client.post("/generate", data=form) as answer:
        assert answer.status == 200


@pytest.mark.parametrize(
    "headers",
    [
        *({"Origin": origin} for origin in EVERY_EVIL),
        {"Origin": EVIL, "Sec-Fetch-Site": "same-origin"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "http://localhost"},
        {"Origin": "ftp://{host}"},
        {"Origin": "http://{host}/"},
        {"Origin": "{host}"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "something-new"},
        {"Origin": "http://{host}", "Sec-Fetch-Site": "cross-site"},
        [("Origin", "http://{host}"), ("Origin", EVIL)],
        [("Origin", OURS), ("Origin", EVIL)],
    ],
)
@pytest.mark.parametrize("kind", ["application/json", "text/plain"])
async def test_a_page_of_another_origin_changes_nothing(serve, tmp_path, headers, kind):
    """Without keys, a form or a script of any page would do: the browser says whose it is."""
    client = await serve(cors_origins=Origins(OURS), data_dir=str(tmp_path))
    host = f"{client.host}:{client.port}"
    pairs = headers.items() if isinstance(headers, dict) else headers
    sent = [*((name, text.format(host=host)) for name, text in pairs), ("Content-Type", kind)]
    asked = [("POST", "/generate"), ("POST", "/jobs"), ("DELETE", f"/jobs/{'0' * 32}")]
    for method, path in asked:
        async with client.request(method, path, data=json.dumps(BODY), headers=sent) as answer:
            body = await answer.json(content_type=None)
        assert (answer.status, body["code"]) == (403, "cross_origin")
        assert "CORS_ORIGINS" in body["detail"]
    refused = client.app[METRICS].registry.get_sample_value(
        "sd_requests_refused_total", {"api": "native", "reason": "origin"}
    )
    assert refused == len(asked)
    async with client.get("/health", headers=sent) as answer:
        assert answer.status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "http://{host}"},
        {"Origin": "http://{host}", "Sec-Fetch-Site": "same-origin"},
        {"Origin": "https://gpu.lan", "Host": "gpu.lan"},
        {"Origin": "https://GPU.lan", "Host": "gpu.lan:443"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": OURS, "Sec-Fetch-Site": "cross-site"},
    ],
)
async def test_our_own_pages_and_listed_ones_may_do_all(serve, headers):
    """The page of the description among them, and whatever is no browser."""
    client = await serve(cors_origins=Origins(OURS), allowed_hosts=Hosts("gpu.lan"))
    host = f"{client.host}:{client.port}"
    sent = {name: text.format(host=host) for name, text in headers.items()}
    async with client.post("/generate", json=BODY, headers=sent) as answer:
        assert answer.status == 200


@pytest.mark.parametrize(
    ("headers", "listable"),
    [
        ({"Origin": EVIL}, True),
        ({"Origin": EVIL, "Sec-Fetch-Site": "cross-site"}, True),
        ({"Origin": "null", "Sec-Fetch-Site": "same-origin"}, False),
        ({"Origin": "null", "Sec-Fetch-Site": "none"}, False),
        ({"Origin": "null"}, False),
        ({"Origin": "file://"}, False),
        ({"Origin": "chrome-extension://abcdef"}, False),
        ({"Sec-Fetch-Site": "cross-site"}, False),
    ],
)
async def test_the_cure_for_a_foreign_page_can_be_followed(client, headers, listable):
    """CORS_ORIGINS takes its origin, or the answer says what else helps."""
    async with client.post("/generate", json=BODY, headers=headers) as answer:
        detail = (await answer.json(content_type=None))["detail"]
    assert ("list its origin in CORS_ORIGINS" in detail) is listable
    assert ("null" in detail and "API keys" in detail) is not listable


async def test_a_star_lets_every_page_change_things(serve):
    """The operator has said so."""
    client = await serve(cors_origins=Origins("*"))
    for headers in ({"Origin": "null"}, {"Origin": EVIL}, {"Sec-Fetch-Site": "cross-site"}):
        async with client.post("/generate", json=BODY, headers=headers) as answer:
            assert answer.status == 200


async def test_a_page_that_has_a_key_may_use_it(serve):
    """A page gets no key from the browser, so its origin says nothing more."""
    client = await serve(api_keys=Keys(f"alice:{ALICE}"))
    headers = {"Origin": EVIL, "Sec-Fetch-Site": "cross-site"}
    for more, expected in (({"X-API-Key": ALICE}, 200), ({}, 401)):
        async with client.post("/generate", json=BODY, headers={**headers, **more}) as answer:
            assert answer.status == expected


async def test_a_page_that_rebinds_its_name_changes_nothing(client):
    """For the browser it is the service's own page; the name tells."""
    headers = {"Host": "evil.example", "Origin": "http://evil.example"}
    async with client.post(
        "/generate", json=BODY, headers={**headers, "Sec-Fetch-Site": "same-origin"}
    ) as answer:
        assert (answer.status, (await answer.json(content_type=None))["code"]) == (403, "forbidden")


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
    ],
)
async def test_a_page_cannot_call_a_local_service_by_its_own_name(client, host, expected):
    """DNS rebinding: the address is ours, and the name is not."""
    for path in ("/health", "/metrics", "/nothing"):
        async with client.get(path, headers={"Host": host}) as answer:
            assert (answer.status == 403) is (expected == 403)
    refused = client.app[METRICS].registry.get_sample_value(
        "sd_requests_refused_total", {"api": "native", "reason": "host"}
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
