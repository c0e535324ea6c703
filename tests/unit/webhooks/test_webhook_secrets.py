"""What webhooks are signed with, from the file of keys to the receiver."""

import asyncio
import os
import time
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from service.access.keyring import Keyring
from service.config.webhook_key import webhook_key
from service.http.middleware import auth
from service.http.state import KEYRING
from tests.support.job_service import BODY, ask, service
from tests.support.receiver import verify

ALICE = "5f0c2f8e9f1b4b7f8d3a61c9e2b7d405"
BOB = "2b7d4055f0c2f8e9f1b4b7f8d3a61c9e"
HERS, COMMON, NEXT = "a-secret-of-alice", "a secret of all of them", "n" * 20


class Receiver:
    """Answers once a test says so, and keeps what it got."""

    def __init__(self) -> None:
        self.got: asyncio.Queue[tuple[dict[str, str], bytes]] = asyncio.Queue()
        self.status = 204
        self.url = ""

    async def take(self, request: web.Request) -> web.Response:
        self.got.put_nowait((dict(request.headers), await request.read()))
        return web.Response(status=self.status)

    async def signed_with(self) -> set[str]:
        """Return the secrets that the next delivery is signed with."""
        headers, body = await asyncio.wait_for(self.got.get(), 20)
        return {
            secret
            for secret in (HERS, COMMON, NEXT)
            if verify(webhook_key(secret), headers, body, time.time())
        }


@pytest.fixture
async def receiver():
    """Return a receiver and its address."""
    found = Receiver()
    app = web.Application()
    app.router.add_post("/", found.take)
    async with TestServer(app) as server:
        found.url = str(server.make_url("/"))
        yield found


@pytest.fixture
def keys(tmp_path):
    """Return a file of two keys, of which one has a secret for its webhooks."""
    path = tmp_path / "keys"
    path.write_text(f"alice:{ALICE} webhook_secret={HERS}\nbob:{BOB}\n")
    return path


@asynccontextmanager
async def serving(tmp_path, keys, **settings):
    async with service(
        tmp_path / "data",
        api_keys_file=str(keys),
        webhook_hosts="127.0.0.1",
        **{"webhook_secret": COMMON, **settings},
    ) as client:
        yield client


async def submit(client, secret, url):
    headers = {"X-API-Key": secret}
    await ask(client, "POST", "/jobs", 202, json={**BODY, "webhook": url}, headers=headers)


async def test_a_keys_own_secret_beats_the_common_one(tmp_path, keys, receiver):
    """Whoever knows the common one cannot forge for her; others are signed with it as before."""
    async with serving(tmp_path, keys) as client:
        await submit(client, ALICE, receiver.url)
        assert await receiver.signed_with() == {HERS}
        await submit(client, BOB, receiver.url)
        assert await receiver.signed_with() == {COMMON}


async def test_without_a_common_secret_her_own_is_used_all_the_same(tmp_path, keys, receiver):
    """The other key goes unsigned."""
    async with serving(tmp_path, keys, webhook_secret="") as client:
        await submit(client, ALICE, receiver.url)
        assert await receiver.signed_with() == {HERS}
        await submit(client, BOB, receiver.url)
        assert await receiver.signed_with() == set()


async def test_a_changed_secret_is_used_from_then_on(tmp_path, keys, receiver, monkeypatch):
    """Without a restart: the file is followed."""
    monkeypatch.setattr(auth, "REFRESH_SECONDS", 0.01)
    take = Keyring.take
    async with serving(tmp_path, keys) as client:
        keyring = client.app[KEYRING]
        taken = asyncio.Event()

        def taking(*given):
            take(*given)
            taken.set()

        monkeypatch.setattr(Keyring, "take", taking)
        keys.write_text(f"alice:{ALICE} webhook_secret={NEXT}\nbob:{BOB}\n")
        os.utime(keys, (1, 1))
        await asyncio.wait_for(taken.wait(), 20)
        assert keyring.webhook_keys("alice") == (NEXT.encode(),)
        await submit(client, ALICE, receiver.url)
        assert await receiver.signed_with() == {NEXT}


async def test_a_delivery_that_outlives_its_service_is_signed_with_the_next_ones(
    tmp_path, keys, receiver
):
    """What was not delivered before a restart has the secret that the key has now."""
    receiver.status = 503
    async with serving(tmp_path, keys) as client:
        await submit(client, ALICE, receiver.url)
        assert await receiver.signed_with() == {HERS}
    keys.write_text(f"alice:{ALICE} webhook_secret={NEXT}\nbob:{BOB}\n")
    receiver.status = 204
    async with serving(tmp_path, keys):
        assert await receiver.signed_with() == {NEXT}
