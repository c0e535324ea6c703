"""What becomes of jobs, also where the disk does not take their ends."""

import asyncio
import sqlite3
from dataclasses import replace

import pytest

from service.config.table import Config
from service.errors import JobExpired, ServiceError, StoreUnavailable
from service.jobs.dispatch.dispatcher import Dispatcher
from service.jobs.durable import result_writer, wiring
from service.jobs.durable.live_job import Durability
from service.jobs.job import JobState
from service.jobs.store.sqlite import SqliteStore
from service.telemetry.metrics import Metrics
from tests.support.jobs.kept_jobs import REQUEST, accepted, kept, over
from tests.support.simulation.fake_engine import FakeEngine


@pytest.mark.usefixtures("impatient")
async def test_a_store_that_takes_nothing_does_not_hold_up_the_stop(tmp_path):
    """What it could not write down is run again by the next start, and nothing is lost."""
    engine = FakeEngine(step_seconds=None)
    dispatcher = Dispatcher([engine], Metrics(), Config())
    folder = kept(tmp_path, dispatcher)
    async with asyncio.timeout(20):
        async with folder.opened():
            await dispatcher.start()
            job = await accepted(folder)
            await engine.jobs(1)
            await folder.store.get(job.id, job.owner)  # The thread has begun the job by now.
            other = sqlite3.connect(tmp_path / wiring.FILE)
            other.execute("BEGIN IMMEDIATE")
            await engine.step()
            await job.wait()
            await dispatcher.stop()
        other.close()
        async with SqliteStore(tmp_path / wiring.FILE) as store:
            (left,) = await store.unfinished()
    assert (left.id, left.attempts) == (job.id, 1)


@pytest.mark.usefixtures("impatient")
async def test_an_end_is_written_as_soon_as_the_store_takes_it(tmp_path, monkeypatch):
    """Whoever waits for the job waits that long, and hears of success."""
    monkeypatch.setattr(result_writer, "RETRY_SECONDS", 0.01)
    engine = FakeEngine(step_seconds=None)
    dispatcher = Dispatcher([engine], Metrics(), Config())
    folder = kept(tmp_path, dispatcher)
    async with asyncio.timeout(20), folder.opened():
        await dispatcher.start()
        job = await accepted(folder)
        await engine.jobs(1)
        await folder.store.get(job.id, job.owner)
        other = sqlite3.connect(tmp_path / wiring.FILE)
        other.execute("BEGIN IMMEDIATE")
        await engine.step()
        waits = asyncio.create_task(over(folder, job.id))
        image = tmp_path / wiring.IMAGES / f"{job.id}.zip"
        while not await asyncio.to_thread(image.exists):
            pass  # Asking is what waits.
        assert not waits.done()
        other.rollback()
        other.close()
        assert (await waits).state is JobState.SUCCEEDED
        await dispatcher.stop()


async def test_an_end_that_is_swept_at_once_is_told(tmp_path, monkeypatch):
    """Images may have to make room the moment they came: who waits does not wait for ever."""
    engine = FakeEngine(step_seconds=None)
    dispatcher = Dispatcher([engine], Metrics(), Config())
    folder = kept(tmp_path, dispatcher)
    finish = folder.store.finish

    async def swept(job_id, *args, **more):
        done = await finish(job_id, *args, **more)
        await folder.store.expire(ids=[job_id])
        return done

    async def watched(live):
        return [event.kind async for event in folder.jobs.events(live)]

    monkeypatch.setattr(folder.store, "finish", swept)
    async with asyncio.timeout(20), folder.opened():
        await dispatcher.start()
        job = await accepted(folder)
        _, live = await folder.jobs.get(job.id, job.owner)
        kinds = asyncio.create_task(watched(live))
        await engine.jobs(1)
        await engine.step()
        with pytest.raises(JobExpired):
            await over(folder, job.id)
        assert (await kinds)[-1] == "finished"
        await dispatcher.stop()


async def test_no_number_of_deploys_fails_a_job(tmp_path):
    """A stop takes the attempt back that it cuts short; those of lost engines stay counted."""
    async with asyncio.timeout(20):
        for deploy in range(5):
            engine = FakeEngine(step_seconds=None)
            dispatcher = Dispatcher([engine], Metrics(), Config())
            folder = kept(tmp_path, dispatcher)
            async with folder.opened():
                await dispatcher.start()
                if not deploy:
                    job = await accepted(folder, replace(REQUEST, steps=9))
                    await engine.jobs(1)
                    engine.crash()
                await engine.jobs(1)
                await folder.store.counts()
                found, live = await folder.jobs.get(job.id, job.owner)
                assert (found.state, found.attempts) == (JobState.RUNNING, 2)
                await dispatcher.stop()
                assert live is not None
                newest = live.events.newest
                assert newest is not None
                assert newest.kind == "queued"
            async with SqliteStore(tmp_path / wiring.FILE) as store:
                (left,) = await store.unfinished()
            assert (left.state, left.attempts, left.started_at) == (JobState.QUEUED, 1, None)
            # Two in the first process and one in each that followed: none had the same.
            assert left.epoch == deploy + 2


@pytest.mark.usefixtures("impatient")
async def test_an_attempt_is_taken_back_as_soon_as_the_store_takes_it(tmp_path, monkeypatch):
    """Within the time that ends have, too."""
    monkeypatch.setattr(result_writer, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(result_writer, "CLOSE_SECONDS", 20)
    engine = FakeEngine(step_seconds=None)
    dispatcher = Dispatcher([engine], Metrics(), Config())
    folder = kept(tmp_path, dispatcher)
    async with asyncio.timeout(20):
        async with folder.opened():
            await dispatcher.start()
            await accepted(folder)
            await engine.jobs(1)
            await folder.store.counts()
            hand_back, tries = folder.store.hand_back, []

            async def busy(job_id, epoch):
                tries.append(job_id)
                if len(tries) < 3:
                    raise StoreUnavailable("locked")
                return await hand_back(job_id, epoch)

            monkeypatch.setattr(folder.store, "hand_back", busy)
            await dispatcher.stop()
        async with SqliteStore(tmp_path / wiring.FILE) as store:
            (left,) = await store.unfinished()
    assert (left.attempts, len(tries)) == (0, 3)


async def test_an_end_that_cannot_be_written_keeps_nobody_waiting(tmp_path, monkeypatch):
    """Those who watch hear of it, those who wait get an error, and a restart runs it again."""
    engine = FakeEngine(step_seconds=None)
    dispatcher = Dispatcher([engine], Metrics(), Config())
    folder = kept(tmp_path, dispatcher)

    async def mistaken(*_args, **_more):
        raise RuntimeError("a mistake")

    async def watched(live):
        return [event async for event in folder.jobs.events(live)]

    monkeypatch.setattr(folder.store, "finish", mistaken)
    async with asyncio.timeout(20):
        async with folder.opened():
            await dispatcher.start()
            with await folder.jobs.submit(REQUEST, "anonymous", Durability.KEYED) as handle:
                events = asyncio.create_task(watched(handle.live))
                await engine.jobs(1)
                await engine.step()
                with pytest.raises(ServiceError) as told:
                    await handle.wait()
            assert told.value.code == "internal_error"
            last = (await events)[-1]
            assert (last.kind, last.data["code"]) == ("failed", "internal_error")
            assert folder.jobs.live == {}
            await over(folder, handle.stored.id)
            await dispatcher.stop()
        async with SqliteStore(tmp_path / wiring.FILE) as store:
            (left,) = await store.unfinished()
    assert left.id == handle.stored.id
