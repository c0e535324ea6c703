"""Pages of other origins and every route that there is: those of all APIs."""

import json
import re

import pytest

from service.app import create_app
from service.config.addresses import Origins
from service.config.credentials import Keys
from service.config.table import Config
from service.http.middleware.cors import SAFE
from service.http.state import ROUTES
from service.telemetry import labels
from tests.support.simulation.fake_engine import FakeEngine

ALICE = "5f0c2f8e9f1b4b7f8d3a61c9e2b7d405"
OURS = "https://lite.koboldai.net"
EVIL = "https://evil.example"
ROWS = create_app(Config(data_dir=""), FakeEngine())[ROUTES].rows
CHANGING = sorted({(row.method, row.path) for row in ROWS if row.method not in SAFE})
PATHS = sorted({row.path for row in ROWS})
CREDENTIALS = {"authorization", "x-api-key"}


def filled(path: str) -> str:
    """Return a path with something in the place of each parameter."""
    return re.sub(r"{[^}]*}", "0", path)


@pytest.mark.parametrize(("method", "path"), CHANGING)
@pytest.mark.parametrize(
    "headers",
    [{"Origin": EVIL}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}],
    ids=["origin", "null", "site"],
)
@pytest.mark.parametrize("kind", ["application/json", "text/plain"])
async def test_no_foreign_page_changes_anything(serve, method, path, headers, kind):
    """Without keys each is refused, in the form of its API, and whatever it sends."""
    client = await serve()
    sent = {**headers, "Content-Type": kind}
    url = filled(path)
    async with client.request(method, url, data=b'{"prompt": "a"}', headers=sent) as answer:
        assert answer.status == 403
        body = json.loads(await answer.read())
    match client.app[ROUTES].api(url).name:
        case labels.OPENAI:
            assert (body["error"]["code"], body["error"]["param"]) == ("cross_origin", None)
        case labels.SDAPI:
            assert "CORS_ORIGINS" in body["detail"]
        case _:
            assert body["code"] == "cross_origin"


@pytest.mark.parametrize("path", PATHS)
async def test_a_listed_page_may_ask_for_every_route(serve, path):
    """With keys, too, which a preflight does not have; it needs no cookies."""
    client = await serve(api_keys=Keys(f"alice:{ALICE}"), cors_origins=Origins(OURS))
    headers = {"Origin": OURS, "Access-Control-Request-Method": "POST"}
    async with client.options(filled(path), headers=headers) as answer:
        assert (answer.status, await answer.read()) == (204, b"")
        assert answer.headers["Access-Control-Allow-Origin"] == OURS
        allowed = answer.headers["Access-Control-Allow-Headers"].lower().split(", ")
        assert CREDENTIALS | {"content-type"} <= set(allowed)
    async with client.options(filled(path), headers={**headers, "Origin": EVIL}) as answer:
        assert "Access-Control-Allow-Origin" not in answer.headers


@pytest.mark.parametrize("path", PATHS)
async def test_a_listed_page_may_read_every_answer(serve, path):
    """Errors included, which a page could not tell from a broken line otherwise."""
    client = await serve(api_keys=Keys(f"alice:{ALICE}"), cors_origins=Origins(OURS))
    async with client.get(filled(path), headers={"Origin": OURS}) as answer:
        assert answer.headers["Access-Control-Allow-Origin"] == OURS
        assert "Origin" in answer.headers["Vary"]
