"""A DATA_DIR that an earlier version wrote, its service killed with SIGKILL while it worked.

``data_dir_75ae117.tar.gz`` was written by commit 75ae117: two keys, jobs in every state, a
quota in use, a webhook that nobody answered. Only its times are moved to today.
"""

import io
import os
import sqlite3
import tarfile
import time
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from PIL import Image

from service.app import create_app
from service.config.loading import load
from service.errors import StoreError
from service.jobs.store.schema import MIGRATIONS
from service.jobs.store.sqlite import SqliteStore
from tests.support.job_service import ask, until
from tests.support.simulation.fake_engine import FakeEngine

ARCHIVE = Path(__file__).parents[1] / "support" / "jobs" / "data_dir_75ae117.tar.gz"
CAME = web.AppKey("came", list)
WRITTEN_AT = 1795966643.0
SECRETS = {name: f"{name}-0123456789abcdefghij-0123456789" for name in ("alice", "bob")}
ALICE, BOB = ({"X-API-Key": secret} for secret in SECRETS.values())
FINISHED, WITH_WEBHOOK = "ef29ce7220a84589a0bccca9f26ef26d", "3ab95297df2d4c71a5eb116840d70ef0"
EXPIRED, CANCELLED = "bfe8c495d9844c2eaea7c7c35a31dca5", "b76495d22c9441dca3a52e8249d9a6bf"
FAILED = "e46a764961ff43f8ba084660197836b1"
RUNNING, QUEUED = "1f6bac89c490431091a1fdc6108c826e", "623d5153182c4307b96ee06edf4baddd"
RUNNING_OF_BOB, QUEUED_OF_BOB = (
    "b37997110a4c48d98baea4eee0c89889",
    "4dafaedd515541b98406c0aa73f1fe27",
)
TWO_CATS = {"prompt": "two cats", "width": 64, "height": 64, "steps": 2, "seed": 7, "num_images": 2}
KEPT_CAT = {"prompt": "a kept cat", "width": 64, "height": 64, "steps": 2, "seed": 7}


@pytest.fixture
async def receiver():
    """Take webhooks, and keep what came."""
    app = web.Application()
    app[CAME] = []

    async def hook(request: web.Request) -> web.Response:
        app[CAME].append(await request.json())
        return web.Response()

    app.router.add_post("/hook", hook)
    async with TestServer(app) as server:
        yield server


@pytest.fixture
def folder(tmp_path, receiver):
    """Unpack what the earlier version left, as if it had been written a moment ago."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    folder = tmp_path / "data"
    for file in (folder / "results").iterdir():
        os.utime(file)
    later = time.time() - WRITTEN_AT
    times = ", ".join(
        f"{name} = {name} + :later"
        for name in ("created_at", "started_at", "finished_at", "deadline_at", "expired_at")
    )
    with closing(sqlite3.connect(folder / "jobs.sqlite")) as file, file:
        file.execute(f"UPDATE jobs SET {times}", {"later": later})  # noqa: S608 - our columns
        file.execute("UPDATE usage SET minute = minute + :minutes", {"minutes": int(later // 60)})
        hook = str(receiver.make_url("/hook"))
        file.execute("UPDATE jobs SET webhook = ? WHERE webhook IS NOT NULL", (hook,))
    return folder


@asynccontextmanager
async def upgraded(folder):
    """Run today's service over the folder."""
    keys = folder.parent / "keys"
    keys.write_text(f"alice:{SECRETS['alice']} images=20\nbob:{SECRETS['bob']}\n")
    keys.chmod(0o600)
    settings = {
        "DATA_DIR": str(folder),
        "API_KEYS_FILE": str(keys),
        "WEBHOOK_SECRET": "a-secret-of-thirty-two-characters",
        "WEBHOOK_HOSTS": "127.0.0.1",
        "MIN_SIZE": "64",
        "DEFAULT_SIZE": "64",
        "SHUTDOWN_TIMEOUT_SECONDS": "0.01",
    }
    app = create_app(load(settings), FakeEngine())
    async with TestClient(TestServer(app)) as client:
        yield client


async def test_what_was_accepted_is_completed(folder, receiver):
    """Jobs that waited or ran are done, whatever their key, and the webhook is delivered."""
    async with upgraded(folder) as client:
        for job, key, images in (
            (RUNNING, ALICE, 1),
            (QUEUED, ALICE, 2),
            (RUNNING_OF_BOB, BOB, 1),
            (QUEUED_OF_BOB, BOB, 1),
        ):
            found = await until(client, job, "succeeded", "failed", "cancelled", headers=key)
            assert found["state"] == "succeeded"
            assert len(found["metadata"].get("seeds", [0])) == images
        found = await until(client, WITH_WEBHOOK, "succeeded", headers=ALICE)
        while found["webhook"]["state"] == "pending":
            found = await ask(client, "GET", f"/jobs/{WITH_WEBHOOK}", 200, headers=ALICE)
        assert found["webhook"]["state"] == "delivered"
    assert WITH_WEBHOOK in str(receiver.app[CAME])


async def test_what_had_ended_stays_as_it_was(folder):
    """Images, reasons and what is forgotten are the same after the upgrade."""
    async with upgraded(folder) as client:
        for index in (0, 1):
            async with client.get(f"/jobs/{FINISHED}/image?index={index}", headers=ALICE) as image:
                assert image.status == 200
                assert Image.open(io.BytesIO(await image.read())).size == (64, 64)
        states = {
            job: (await ask(client, "GET", f"/jobs/{job}", 200, headers=key))["state"]
            for job, key in ((FINISHED, ALICE), (FAILED, ALICE), (CANCELLED, BOB))
        }
        assert states == {FINISHED: "succeeded", FAILED: "failed", CANCELLED: "cancelled"}
        gone = await ask(client, "GET", f"/jobs/{EXPIRED}", 410, headers=BOB)
        assert gone["code"] == "job_expired"
        await ask(client, "GET", f"/jobs/{FINISHED}", 404, headers=BOB)


async def test_an_idempotency_key_still_stands_for_its_request(folder):
    """The same request again is the old job, another one is refused."""
    async with upgraded(folder) as client:
        again = {**ALICE, "Idempotency-Key": "kept-1"}
        same = await ask(client, "POST", "/jobs", 200, json=TWO_CATS, headers=again)
        assert same["id"] == FINISHED
        other = {**TWO_CATS, "seed": 8}
        await ask(client, "POST", "/jobs", 409, json=other, headers=again)
        plain = {**ALICE, "Idempotency-Key": "kept-2"}
        await ask(client, "POST", "/generate", 200, json=KEPT_CAT, headers=plain)


async def test_quotas_go_on(folder):
    """The eight images that alice used before the upgrade are used."""
    async with upgraded(folder) as client:
        bad = {**KEPT_CAT, "steps": 99}
        async with client.post("/generate", json=bad, headers=ALICE) as answer:
            assert answer.status == 400
            assert answer.headers["X-RateLimit-Remaining-Images"] == "12"


async def test_attempts_of_an_earlier_version_have_an_epoch(folder):
    """That is their number, and they came through the native API, the only one there was."""
    async with SqliteStore(folder / "jobs.sqlite") as store:
        left = {job.id: job for job in await store.unfinished()}
    assert (left[RUNNING].attempts, left[RUNNING].epoch) == (1, 1)
    assert (left[QUEUED].attempts, left[QUEUED].epoch) == (0, 0)
    assert {job.api for job in left.values()} == {"native"}


async def test_a_version_that_is_too_old_says_so(folder):
    """A file of a later version is refused in words and stays as it is."""
    async with upgraded(folder):
        pass
    file = folder / "jobs.sqlite"
    with closing(sqlite3.connect(file)) as later, later:
        assert later.execute("PRAGMA user_version").fetchone()[0] == len(MIGRATIONS)
        later.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    with pytest.raises(StoreError, match="newer version"):
        await SqliteStore(file).open()
    with closing(sqlite3.connect(file)) as unchanged:
        assert unchanged.execute("SELECT count(*) FROM jobs").fetchone()[0] == 10
