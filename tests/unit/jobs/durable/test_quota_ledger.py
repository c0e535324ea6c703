"""Quotas over a restart."""

import asyncio
import shutil

import pytest

from service.access.allowance import DAY_SECONDS, Allowance, Limits
from service.config.credentials import Keys
from service.errors import StoreUnavailable
from service.http.middleware import auth
from service.http.state import ALLOWANCE, DISPATCHER, DURABLE, KEYRING
from service.jobs.durable import quota_ledger
from service.jobs.durable.quota_ledger import QuotaLedger
from service.jobs.store.sqlite import SqliteStore
from tests.support.job_service import BODY, ask, service, until
from tests.support.jobs.memory_store import MemoryStore
from tests.support.simulation.fake_engine import FakeEngine

SECRET = "0f3a9c5e7b1d2846" * 2
ALICE = {"X-API-Key": SECRET}
QUOTA = {"api_keys": Keys(f"alice:{SECRET}"), "quota_images_per_day": 9}
NINE = Limits(images_per_day=9)


async def known(client, *names):
    """Wait until the service knows these keys and no others."""
    async with asyncio.timeout(30):
        while client.app[KEYRING].names != names:
            await client.get("/health/live")


def left(client):
    """Return the images that alice may still ask for."""
    return client.app[ALLOWANCE].images_left("alice", NINE).remaining


async def test_a_restart_forgets_no_images(tmp_path):
    """Those of answers, of jobs, and of jobs that are not over; failed ones do not count."""
    engine = FakeEngine(step_seconds=None)
    async with service(tmp_path, engine, **QUOTA) as client:

        async def job(count, **more):
            body = BODY | {"num_images": count}
            found = await ask(client, "POST", "/jobs", 202, json=body | more, headers=ALICE)
            await engine.jobs(1)
            return found["id"]

        done = await job(1)
        await engine.step(2)
        await until(client, done, "succeeded", headers=ALICE)
        failed = await job(3)
        engine.fail()
        await until(client, failed, "failed", headers=ALICE)
        body = BODY | {"num_images": 2}
        asked = asyncio.create_task(ask(client, "POST", "/generate", 200, json=body, headers=ALICE))
        await engine.jobs(1)
        await engine.step(2)
        await asked
        running = await job(3)
        assert left(client) == 9 - 1 - 2 - 3
    engine = FakeEngine(step_seconds=None)
    async with service(tmp_path, engine, **QUOTA) as client:
        assert left(client) == 3
        await ask(client, "POST", "/jobs", 429, json=BODY | {"num_images": 4}, headers=ALICE)
        await engine.jobs(1)
        engine.fail()
        await until(client, running, "failed", headers=ALICE)
        assert left(client) == 6
    async with service(tmp_path, **QUOTA) as client:
        assert left(client) == 6


async def test_images_count_for_a_day_across_restarts(tmp_path):
    """And are forgotten on the disk, too."""

    class Clock:
        now = 10 * DAY_SECONDS

        def __call__(self):
            return self.now

    clock = Clock()
    for hours, expected in ((0, 9), (1, 5), (22, 5), (1.5, 9), (0, 9)):
        clock.now += hours * 3600
        allowance = Allowance(clock)
        async with SqliteStore(tmp_path / "jobs.sqlite") as store:
            kept = QuotaLedger(store, allowance, clock=clock)
            await kept.open([])
            found = allowance.images_left("alice", NINE)
            assert found is not None
            assert found.remaining == expected
            if not hours and clock.now == 10 * DAY_SECONDS:
                allowance.charge("alice", 4, NINE).keep()
                allowance.charge("alice", 2, NINE).give_back()
                allowance.charge("bob", 4, Limits()).keep()
            await kept.close()
            rows = [(used.owner, used.images) for used in await store.usage(0)]
            both = [("alice", 4), ("bob", 4)]
            assert sorted(rows) == (both if clock.now < 11 * DAY_SECONDS else [])


async def test_what_the_disk_does_not_take_at_first_is_written_later(monkeypatch):
    """Nothing is lost between the tries."""
    monkeypatch.setattr(quota_ledger, "RETRY_SECONDS", 0)
    allowance, store = Allowance(), MemoryStore()
    kept = QuotaLedger(store, allowance)
    await kept.open([])
    add_usage, tries = store.add_usage, []
    written = asyncio.Event()

    async def refusing(used):
        tries.append(used)
        if len(tries) < 3:
            raise StoreUnavailable("full")
        await add_usage(used)
        written.set()

    monkeypatch.setattr(store, "add_usage", refusing)
    allowance.charge("alice", 4, NINE).keep()
    async with asyncio.timeout(20):
        await written.wait()
    assert [used.images for used in await store.usage(0)] == [4]
    await kept.close()


async def test_what_is_being_written_at_the_end_is_written_once(monkeypatch):
    """The end waits for it, and then writes what came meanwhile."""
    allowance, writing, store = Allowance(), asyncio.Event(), MemoryStore()
    kept = QuotaLedger(store, allowance)
    await kept.open([])
    add_usage = store.add_usage

    async def told(used):
        writing.set()
        await asyncio.sleep(0)
        await add_usage(used)

    monkeypatch.setattr(store, "add_usage", told)
    allowance.charge("alice", 4, NINE).keep()
    async with asyncio.timeout(20):
        await writing.wait()
    allowance.charge("bob", 2, NINE).keep()
    await kept.close()
    rows = [(used.owner, used.images) for used in await store.usage(0)]
    assert sorted(rows) == [("alice", 4), ("bob", 2)]


@pytest.mark.parametrize("folder", ["", "kept"])
async def test_a_service_with_and_without_a_folder_counts(tmp_path, folder):
    """Without one it forgets at its end, and not before."""
    async with service(folder and tmp_path / folder, **QUOTA) as client:
        await ask(client, "POST", "/generate", 200, json=BODY, headers=ALICE)
        assert left(client) == 8
        assert client.app[DISPATCHER].depth == 0


async def test_a_kill_before_an_end_is_on_the_disk_charges_once(tmp_path, monkeypatch):
    """The job runs again, and its images were paid for before."""
    engine = FakeEngine(step_seconds=None)
    made, go_on = asyncio.Event(), asyncio.Event()
    async with service(tmp_path / "a", engine, **QUOTA) as client:
        kept = client.app[DURABLE]
        write = kept.results.write

        async def slow(*args):
            made.set()
            await go_on.wait()
            return await write(*args)

        monkeypatch.setattr(kept.results, "write", slow)
        body = BODY | {"num_images": 4}
        job = (await ask(client, "POST", "/jobs", 202, json=body, headers=ALICE))["id"]
        await engine.jobs(1)
        await engine.step(2)
        async with asyncio.timeout(20):
            await made.wait()
        await kept._ledger._flush()
        # What a kill -9 leaves now.
        await asyncio.to_thread(shutil.copytree, tmp_path / "a", tmp_path / "b")
        go_on.set()
        await until(client, job, "succeeded", headers=ALICE)
        assert left(client) == 5
    for folder in ("a", "b", "b"):
        async with service(tmp_path / folder, **QUOTA) as client:
            await until(client, job, "succeeded", headers=ALICE)
            assert left(client) == 5


@pytest.mark.parametrize("path", ["/jobs", "/generate"])
async def test_images_that_could_not_be_kept_are_given_back(tmp_path, path):
    """The job has failed for want of the folder, and a restart knows of no charge either."""
    engine, folder = FakeEngine(step_seconds=None), tmp_path / "results"
    async with service(tmp_path, engine, **QUOTA) as client:
        headers = ALICE | {"Idempotency-Key": "order-1"}
        body = BODY | {"num_images": 4}
        request = asyncio.create_task(client.post(path, json=body, headers=headers))
        await engine.jobs(1)
        assert left(client) == 5
        folder.rename(tmp_path / "elsewhere")
        folder.touch()
        await engine.step(2)
        async with await request as answer:
            assert answer.status == {"/jobs": 202, "/generate": 503}[path]
        job = (await ask(client, "GET", "/jobs", 200, headers=ALICE))["jobs"][0]["id"]
        found = await until(client, job, "failed", headers=ALICE)
        assert found["error"]["code"] == "storage_unavailable"
        assert left(client) == 9
        folder.unlink()
        (tmp_path / "elsewhere").rename(folder)
    async with service(tmp_path, **QUOTA) as client:
        assert left(client) == 9


async def test_a_line_that_leaves_the_file_and_returns_forgets_no_images(tmp_path, monkeypatch):
    """Those of jobs that ran meanwhile count, too, and the disk has the same figure."""
    monkeypatch.setattr(auth, "REFRESH_SECONDS", 0.01)
    path, engine = tmp_path / "keys", FakeEngine(step_seconds=None)
    bob = "8d1e6f0a4c7b3952" * 2

    def written(*lines):
        path.write_text("\n".join(lines))
        path.chmod(0o600)

    written(f"alice:{SECRET}", f"bob:{bob}")
    settings = {"api_keys_file": str(path), "quota_images_per_day": 9, "max_concurrent_requests": 1}
    async with service(tmp_path / "data", engine, **settings) as client:
        for count in (2, 4):
            body = BODY | {"num_images": count}
            await ask(client, "POST", "/jobs", 202, json=body, headers=ALICE)
        await engine.jobs(1)
        written(f"bob:{bob}")
        await known(client, "bob")
        await engine.step(2)  # Those of the first job are paid for by a key that is gone.
        await engine.jobs(1)
        written(f"alice:{SECRET}", f"bob:{bob}", "")
        await known(client, "alice", "bob")
        assert left(client) == 3
        await ask(client, "POST", "/jobs", 429, json=BODY | {"num_images": 4}, headers=ALICE)
    async with service(tmp_path / "data", FakeEngine(loads=False), **settings) as client:
        assert left(client) == 3


async def test_images_that_were_drawn_before_a_key_had_a_quota_count_after_a_restart(
    tmp_path, monkeypatch
):
    """Plain answers, repeatable ones and jobs: memory and disk have the same figure."""
    monkeypatch.setattr(auth, "REFRESH_SECONDS", 0.01)
    path, line = tmp_path / "keys", f"alice:{SECRET}"
    repeatable = ALICE | {"Idempotency-Key": "order-1"}

    def written(*lines):
        path.write_text("\n".join(lines))
        path.chmod(0o600)

    def told(answer):
        return answer.headers.get("X-RateLimit-Remaining-Images")

    written(line)
    settings = {"api_keys_file": str(path)}
    async with service(tmp_path / "data", **settings) as client:
        for headers in (ALICE, repeatable):
            async with client.post("/generate", json=BODY, headers=headers) as answer:
                assert (answer.status, told(answer)) == (200, None)
        job = (await ask(client, "POST", "/jobs", 202, json=BODY, headers=ALICE))["id"]
        await until(client, job, "succeeded", headers=ALICE)
        written(f"{line} images=10", "bob:" + "8d1e6f0a4c7b3952" * 2)
        await known(client, "alice", "bob")
        async with client.post("/generate", json=BODY, headers=ALICE) as answer:
            assert (answer.status, told(answer)) == (200, "6")
    for remaining in ("5", "4"):
        async with (
            service(tmp_path / "data", **settings) as client,
            client.post("/generate", json=BODY, headers=ALICE) as answer,
        ):
            assert (answer.status, told(answer)) == (200, remaining)


async def test_a_quota_for_all_counts_what_was_drawn_before_it_was_set(tmp_path):
    """A service without keys counts for everybody together, from the last day on."""
    async with service(tmp_path) as client:
        await ask(client, "POST", "/generate", 200, json=BODY)
    async with service(tmp_path, quota_images_per_day=2) as client:
        await ask(client, "POST", "/generate", 200, json=BODY)
        refused = await ask(client, "POST", "/generate", 429, json=BODY)
        assert refused["code"] == "quota_exceeded"
