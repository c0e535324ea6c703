"""Quotas over a restart."""

import asyncio
import shutil
import threading

import pytest

from service.credentials import Keys
from service.engine.fake import FakeEngine
from service.errors import StoreUnavailable
from service.http.keys import ALLOWANCE, CONSUMER, DURABLE
from service.jobs import usage
from service.jobs.allowance import DAY_SECONDS, Allowance, Limits
from service.jobs.store import JobStore
from service.jobs.usage import Usage
from tests.job_service import BODY, ask, service, until

SECRET = "0f3a9c5e7b1d2846" * 2
ALICE = {"X-API-Key": SECRET}
QUOTA = {"api_keys": Keys(f"alice:{SECRET}"), "quota_images_per_day": 9}
NINE = Limits(images_per_day=9)


def left(client):
    """Return the pictures that alice may still ask for."""
    return client.app[ALLOWANCE].images_left("alice", NINE).remaining


async def test_a_restart_forgets_no_pictures(tmp_path):
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


async def test_pictures_count_for_a_day_across_restarts(tmp_path):
    """And are forgotten on the disk, too."""

    class Clock:
        now = 10 * DAY_SECONDS

        def __call__(self):
            return self.now

    clock = Clock()
    for hours, expected in ((0, 9), (1, 5), (22, 5), (1.5, 9), (0, 9)):
        clock.now += hours * 3600
        allowance = Allowance(clock)
        async with JobStore(tmp_path / "jobs.sqlite") as store:
            kept = Usage(store, allowance, clock=clock)
            await kept.open([])
            found = allowance.images_left("alice", NINE)
            assert found is not None
            assert found.remaining == expected
            if not hours and clock.now == 10 * DAY_SECONDS:
                allowance.charge("alice", 4, NINE).keep()
                allowance.charge("alice", 2, NINE).give_back()
                allowance.charge("bob", 4, Limits()).keep()
            await kept.close()
            rows = await store.run(lambda c: c.execute("SELECT key, images FROM usage").fetchall())
            assert rows == ([("alice", 4)] if clock.now < 11 * DAY_SECONDS else [])


async def test_what_the_disk_does_not_take_at_first_is_written_later(tmp_path, monkeypatch):
    """Nothing is lost between the tries."""
    monkeypatch.setattr(usage, "RETRY_SECONDS", 0)
    allowance = Allowance()
    async with JobStore(tmp_path / "jobs.sqlite") as store:
        kept = Usage(store, allowance)
        await kept.open([])
        run, tries = store.run, []
        written = asyncio.Event()

        async def refusing(work, **more):
            tries.append(work)
            if len(tries) < 3:
                raise StoreUnavailable("full")
            await run(work, **more)
            written.set()

        monkeypatch.setattr(store, "run", refusing)
        allowance.charge("alice", 4, NINE).keep()
        async with asyncio.timeout(20):
            await written.wait()
        assert await run(lambda c: c.execute("SELECT images FROM usage").fetchall()) == [(4,)]
        await kept.close()


@pytest.mark.parametrize("folder", ["", "kept"])
async def test_a_service_with_and_without_a_folder_counts(tmp_path, folder):
    """Without one it forgets at its end, and not before."""
    async with service(folder and tmp_path / folder, **QUOTA) as client:
        await ask(client, "POST", "/generate", 200, json=BODY, headers=ALICE)
        assert left(client) == 8
        assert client.app[CONSUMER].depth == 0


async def test_a_kill_before_an_end_is_on_the_disk_charges_once(tmp_path, monkeypatch):
    """The job runs again, and its pictures were paid for before."""
    engine, loop = FakeEngine(step_seconds=None), asyncio.get_running_loop()
    made, go_on = asyncio.Event(), threading.Event()
    async with service(tmp_path / "a", engine, **QUOTA) as client:
        kept = client.app[DURABLE]
        write = kept.results.write

        def slow(*args):
            loop.call_soon_threadsafe(made.set)
            assert go_on.wait(20)
            return write(*args)

        monkeypatch.setattr(kept.results, "write", slow)
        body = BODY | {"num_images": 4}
        job = (await ask(client, "POST", "/jobs", 202, json=body, headers=ALICE))["id"]
        await engine.jobs(1)
        await engine.step(2)
        async with asyncio.timeout(20):
            await made.wait()
        await kept._usage._flush()
        # What a kill -9 leaves now.
        await asyncio.to_thread(shutil.copytree, tmp_path / "a", tmp_path / "b")
        go_on.set()
        await until(client, job, "succeeded", headers=ALICE)
        assert left(client) == 5
    for folder in ("a", "b", "b"):
        async with service(tmp_path / folder, **QUOTA) as client:
            await until(client, job, "succeeded", headers=ALICE)
            assert left(client) == 5
