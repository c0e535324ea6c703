"""docs/WEBHOOKS.md, held against a real delivery."""

import asyncio
import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from service.config.webhook_key import SHORTEST_KEY, webhook_key
from service.webhooks import delivery, signature
from service.webhooks.client import ATTEMPT_SECONDS
from service.webhooks.delivery import Retries
from service.webhooks.targets import LONGEST_URL
from tests.support.job_service import BODY, ask, service, until

DOCUMENT = (Path(__file__).parents[2] / "docs" / "WEBHOOKS.md").read_text(encoding="utf-8")
SECRETS = ("a secret of some length", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")


def snippet(language: str) -> str:
    """Return the one block of the document in a language."""
    (found,) = re.findall(rf"```{language}\n(.*?)```", DOCUMENT, flags=re.DOTALL)
    return str(found)


@dataclass
class Delivery:
    """What a receiver got."""

    headers: dict[str, str]
    body: bytes


async def delivered(folder: Path, secret: str) -> tuple[Delivery, dict[str, Any]]:
    """Let a service deliver the end of a job; return that and the job."""
    got: asyncio.Future[Delivery] = asyncio.get_running_loop().create_future()

    async def receive(request: web.Request) -> web.Response:
        got.set_result(Delivery(dict(request.headers), await request.read()))
        return web.Response(status=204)

    app = web.Application()
    app.router.add_post("/images", receive)
    settings = {"webhook_hosts": "127.0.0.1", "webhook_secret": secret}
    async with TestServer(app) as receiver, service(folder, **settings) as client:
        body = BODY | {"webhook": f"{receiver.make_url('/images')}?token=1"}
        job = (await ask(client, "POST", "/jobs", 202, json=body))["id"]
        async with asyncio.timeout(20):
            found = await got
            job = await until(client, job, "succeeded")
            while job["webhook"]["state"] == "pending":
                job = await until(client, job["id"], "succeeded")
    return found, job


@pytest.mark.parametrize("secret", SECRETS)
async def test_the_snippet_in_python_knows_what_is_ours(tmp_path, secret):
    """And notices a changed body, another secret, and what is old."""
    found, job = await delivered(tmp_path, secret)
    assert job["webhook"]["state"] == "delivered"
    namespace: dict[str, Any] = {}
    exec(snippet("python"), namespace)  # noqa: S102 - our own document
    verify = namespace["verify"]
    assert verify(secret, found.headers, found.body)
    assert not verify(secret, found.headers, found.body + b" ")
    assert not verify("another secret of some length", found.headers, found.body)
    old = found.headers | {"Webhook-Timestamp": "1000"}
    assert not verify(secret, old, found.body)
    key = webhook_key(secret)
    stale = signature.signed([key], found.headers["Webhook-Id"], 1000, found.body)
    assert not verify(secret, stale, found.body)
    assert not verify(secret, {k: v for k, v in stale.items() if "Sig" not in k}, found.body)


@pytest.mark.skipif(shutil.which("node") is None, reason="there is no Node")
@pytest.mark.parametrize("secret", SECRETS)
async def test_the_snippet_for_node_knows_what_is_ours(tmp_path, secret):
    """The same."""
    found, _ = await delivered(tmp_path, secret)
    headers = {name.lower(): value for name, value in found.headers.items()}
    other = {name: value for name, value in headers.items() if name != "webhook-signature"}
    cases = [
        (secret, headers, found.body),
        (secret, headers, found.body + b" "),
        ("another secret of some length", headers, found.body),
        (secret, headers | {"webhook-timestamp": "1000"}, found.body),
        (secret, other, found.body),
    ]
    given = [[secret_, headers_, body.decode()] for secret_, headers_, body in cases]
    program = (
        f"{snippet('js')}\nimport {{readFileSync}} from 'node:fs';\n"
        "const cases = JSON.parse(readFileSync(0));\n"
        "console.log(JSON.stringify(cases.map(([s, h, b]) => verify(s, h, Buffer.from(b)))));\n"
    )
    ran = await asyncio.to_thread(
        subprocess.run,
        ["node", "--input-type=module", "-e", program],
        input=json.dumps(given).encode(),
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert json.loads(ran.stdout) == [True, False, False, False, False]


async def test_the_body_and_the_headers_are_those_described(tmp_path):
    """Field by field; the metadata is that of the job."""
    found, job = await delivered(tmp_path, SECRETS[0])
    body = json.loads(found.body)
    shown = json.loads(snippet("json"))
    assert body.keys() == shown.keys()
    assert set(shown["metadata"]) - {"…"} <= set(body["metadata"])
    assert body == {
        "id": job["id"],
        "state": "succeeded",
        "error": None,
        "metadata": job["metadata"],
    }
    assert set(re.findall(r"^\| `(\w+)` \|", DOCUMENT, flags=re.MULTILINE)) == set(body)
    named = set(re.findall(r"^\| `(Webhook-\w+)` \|", DOCUMENT, flags=re.MULTILINE))
    assert named == {name for name in found.headers if name.startswith("Webhook-")}
    assert found.headers["Content-Type"] == "application/json"


async def test_the_numbers_are_those_of_the_code():
    """Attempts, waits, and lengths."""
    retries = Retries()
    assert (retries.attempts, retries.first, retries.longest, retries.total) == (10, 5, 900, 3600)
    assert "ten times, for an hour at most: after 5 seconds, 10, 20 and so on up to 15 minutes" in (
        " ".join(DOCUMENT.split())
    )
    assert f"{LONGEST_URL:,} characters" in DOCUMENT
    assert f"within {ATTEMPT_SECONDS:.0f} seconds" in DOCUMENT
    assert f"{SHORTEST_KEY} bytes or more" in DOCUMENT
    again = {int(status) for status in delivery.SLOW_DOWN}
    assert again == {408, 425, 429}
    assert "5xx, 408, 425, 429" in DOCUMENT
