"""What becomes of jobs in the book, also where the disk does not take their ends."""

import asyncio
import sqlite3
from dataclasses import replace

import pytest

from service.config import Config
from service.engine.fake import FakeEngine
from service.errors import Cancelled, JobExpired, ServiceError, StoreUnavailable
from service.jobs import durable, endings
from service.jobs.consumer import Consumer
from service.jobs.job import Job, JobState
from service.jobs.store import JobStore
from service.telemetry.metrics import Metrics
from tests.kept_jobs import REQUEST, kept, row


@pytest.mark.usefixtures("impatient")
async def test_a_store_that_takes_nothing_does_not_hold_up_the_stop(tmp_path):
    """What it could not write down is run again by the next start, and nothing is lost."""
    engine = FakeEngine(step_seconds=None)
    consumer = Consumer(engine, Metrics(), Config())
    job = Job(request=REQUEST)
    folder = kept(tmp_path, consumer)
    async with asyncio.timeout(20):
        async with folder.opened():
            await consumer.start()
            await folder.book.accept(job, row(job), lambda: None)
            await engine.jobs(1)
            await folder.store.get(job.id, job.key)  # The thread has begun the job by now.
            other = sqlite3.connect(tmp_path / durable.FILE)
            other.execute("BEGIN IMMEDIATE")
            await engine.step()
            assert job.state is JobState.SUCCEEDED
            await consumer.stop()
        other.close()
        async with JobStore(tmp_path / durable.FILE) as store:
            (left,) = await store.unfinished()
    assert (left.id, left.attempts) == (job.id, 1)


@pytest.mark.usefixtures("impatient")
async def test_an_end_is_written_as_soon_as_the_store_takes_it(tmp_path, monkeypatch):
    """Whoever waits for the job waits that long, and hears of success."""
    monkeypatch.setattr(endings, "RETRY_SECONDS", 0.01)
    engine = FakeEngine(step_seconds=None)
    consumer = Consumer(engine, Metrics(), Config())
    job = Job(request=REQUEST)
    folder = kept(tmp_path, consumer)
    async with asyncio.timeout(20), folder.opened():
        await consumer.start()
        await folder.book.accept(job, row(job), lambda: None)
        await engine.jobs(1)
        await folder.store.get(job.id, job.key)
        other = sqlite3.connect(tmp_path / durable.FILE)
        other.execute("BEGIN IMMEDIATE")
        await engine.step()
        waits = asyncio.create_task(folder.book.wait(job.id, job.key))
        picture = tmp_path / durable.PICTURES / f"{job.id}.zip"
        while not await asyncio.to_thread(picture.exists):
            pass  # Asking is what waits.
        assert not waits.done()
        other.rollback()
        other.close()
        assert (await waits).state is JobState.SUCCEEDED
        await consumer.stop()


async def test_an_end_that_is_swept_at_once_is_told(tmp_path, monkeypatch):
    """Pictures may have to make room the moment they came: who waits does not wait for ever."""
    engine = FakeEngine(step_seconds=None)
    consumer = Consumer(engine, Metrics(), Config())
    job = Job(request=REQUEST)
    folder = kept(tmp_path, consumer)
    finish = folder.store.finish

    async def swept(job_id, *args, **more):
        done = await finish(job_id, *args, **more)
        await folder.store.expire(ids=[job_id])
        return done

    async def watched(entry):
        return [event.kind async for event in folder.book.events(entry)]

    monkeypatch.setattr(folder.store, "finish", swept)
    async with asyncio.timeout(20), folder.opened():
        await consumer.start()
        await folder.book.accept(job, row(job), lambda: None)
        _, entry = await folder.book.get(job.id, job.key)
        kinds = asyncio.create_task(watched(entry))
        await engine.jobs(1)
        await engine.step()
        with pytest.raises(JobExpired):
            await folder.book.wait(job.id, job.key)
        assert (await kinds)[-1] == "finished"
        await consumer.stop()


async def test_no_number_of_deploys_fails_a_job(tmp_path):
    """A stop takes the attempt back that it cuts short; those of lost engines stay counted."""
    job = Job(request=replace(REQUEST, steps=9))
    async with asyncio.timeout(20):
        for deploy in range(5):
            engine = FakeEngine(step_seconds=None)
            consumer = Consumer(engine, Metrics(), Config())
            folder = kept(tmp_path, consumer)
            async with folder.opened():
                await consumer.start()
                if not deploy:
                    await folder.book.accept(job, row(job), lambda: None)
                    await engine.jobs(1)
                    engine.crash()
                await engine.jobs(1)
                await folder.store.counts()
                found, entry = await folder.book.get(job.id, job.key)
                assert (found.state, found.attempts) == (JobState.RUNNING, 2)
                await consumer.stop()
                assert entry is not None
                newest = entry.events.newest
                assert newest is not None
                assert newest.kind == "queued"
            async with JobStore(tmp_path / durable.FILE) as store:
                (left,) = await store.unfinished()
            assert (left.state, left.attempts, left.started_at) == (JobState.QUEUED, 1, None)


@pytest.mark.usefixtures("impatient")
async def test_an_attempt_is_taken_back_as_soon_as_the_store_takes_it(tmp_path, monkeypatch):
    """Within the time that ends have, too."""
    monkeypatch.setattr(endings, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(endings, "CLOSE_SECONDS", 20)
    engine = FakeEngine(step_seconds=None)
    consumer = Consumer(engine, Metrics(), Config())
    job = Job(request=REQUEST)
    folder = kept(tmp_path, consumer)
    async with asyncio.timeout(20):
        async with folder.opened():
            await consumer.start()
            await folder.book.accept(job, row(job), lambda: None)
            await engine.jobs(1)
            await folder.store.counts()
            hand_back, tries = folder.store.hand_back, []

            async def busy(job_id):
                tries.append(job_id)
                if len(tries) < 3:
                    raise StoreUnavailable("locked")
                return await hand_back(job_id)

            monkeypatch.setattr(folder.store, "hand_back", busy)
            await consumer.stop()
        async with JobStore(tmp_path / durable.FILE) as store:
            (left,) = await store.unfinished()
    assert (left.attempts, len(tries)) == (0, 3)


async def test_an_end_that_cannot_be_written_keeps_nobody_waiting(tmp_path, monkeypatch):
    """Those who watch hear of it, those who wait get an error, and a restart runs it again."""
    engine = FakeEngine(step_seconds=None)
    consumer = Consumer(engine, Metrics(), Config())
    job = Job(request=REQUEST)
    folder = kept(tmp_path, consumer)

    async def mistaken(*_args, **_more):
        raise RuntimeError("a mistake")

    async def watched(entry):
        return [event async for event in folder.book.events(entry)]

    monkeypatch.setattr(folder.store, "finish", mistaken)
    async with asyncio.timeout(20):
        async with folder.opened():
            await consumer.start()
            async with folder.book.joined(job, row(job), lambda: None, Cancelled) as found:
                events = asyncio.create_task(watched(found[1]))
                await engine.jobs(1)
                await engine.step()
                with pytest.raises(ServiceError) as told:
                    await folder.book.result(*found)
            assert told.value.code == "internal_error"
            last = (await events)[-1]
            assert (last.kind, last.data["code"]) == ("failed", "internal_error")
            assert folder.book.entries == {}
            await folder.book.wait(job.id, job.key)
            await consumer.stop()
        async with JobStore(tmp_path / durable.FILE) as store:
            (left,) = await store.unfinished()
    assert left.id == job.id
