"""The book of durable jobs, where the disk does not take what it shall hold."""

import asyncio
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from service.config import Config
from service.diffusion.generation import GenerationRequest
from service.engine.fake import FakeEngine
from service.errors import JobExpired, QueueFull
from service.jobs import durable, endings
from service.jobs.allowance import Allowance, Limits
from service.jobs.consumer import Consumer
from service.jobs.durable import Durable
from service.jobs.job import Job, JobState
from service.jobs.results import Encoded
from service.jobs.store import JobStore
from service.jobs.stored import StoredJob
from service.telemetry.metrics import Metrics

REQUEST = GenerationRequest(prompt="a cat", width=64, height=64, steps=1)
KEPT = [Encoded(data=b"a picture", media_type="image/png")]


async def _nowhere(*_args):
    raise AssertionError("there is no webhook")


def kept(folder: Path, consumer: Consumer) -> Durable:
    """Return what keeps the jobs of a consumer."""
    return Durable(
        Config(data_dir=str(folder)),
        consumer,
        Metrics(),
        Allowance(),
        encode=lambda *_: KEPT,
        describe=lambda *_: {"model_version": "fake-1"},
        post=_nowhere,
        spans=lambda: None,
    )


def row(job: Job) -> StoredJob:
    """Return the row of a new job."""
    return StoredJob(id=job.id, key=job.key, request=job.request, created_at=1.0)


@pytest.fixture
def impatient(monkeypatch):
    """Wait for a locked file and for a last end no longer than a test may."""
    monkeypatch.setattr(endings, "CLOSE_SECONDS", 0.01)
    monkeypatch.setattr(
        durable, "JobStore", lambda path, **more: JobStore(path, busy_seconds=0.01, **more)
    )


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


async def test_a_job_that_slips_in_beside_a_full_batch_begins_on_the_disk(tmp_path):
    """It begins within its acceptance: the attempt counts, and who watches is told."""
    engine = FakeEngine(step_seconds=None)
    consumer = Consumer(engine, Metrics(), Config(max_concurrent_requests=1))
    long, short = Job(request=replace(REQUEST, steps=50)), Job(request=REQUEST)
    folder = kept(tmp_path, consumer)

    async def watched(entry):
        return [event.kind async for event in folder.book.events(entry)]

    async with asyncio.timeout(20), folder.opened():
        await consumer.start()
        await folder.book.accept(long, row(long), lambda: None)
        await engine.jobs(1)
        await folder.book.accept(short, row(short), lambda: None)
        assert set(engine.batch) == {long.id, short.id}
        await folder.store.counts()  # Behind the begin, whose task runs meanwhile.
        begun, entry = await folder.book.get(short.id, short.key)
        assert (begun.state, begun.attempts) == (JobState.RUNNING, 1)
        assert begun.started_at is not None
        kinds = asyncio.create_task(watched(entry))
        await engine.step()
        assert (await kinds)[0] == "started"
        await consumer.stop()


@pytest.mark.parametrize("error", [QueueFull("no place"), RuntimeError("a mistake")])
async def test_a_job_that_is_refused_leaves_nothing(tmp_path, monkeypatch, error):
    """Neither an entry nor a charge, whatever the refusal is."""
    consumer = Consumer(FakeEngine(), Metrics(), Config())
    job, allowance = Job(request=REQUEST), Allowance()
    limits = Limits(images_per_day=5)
    folder = kept(tmp_path, consumer)

    def refuse(_job):
        raise error

    monkeypatch.setattr(consumer, "submit", refuse)
    async with asyncio.timeout(20), folder.opened():
        with pytest.raises(type(error)):
            await folder.book.accept(job, row(job), lambda: allowance.charge(job.key, 1, limits))
        assert folder.book.entries == {}
        left = allowance.images_left(job.key, limits)
        assert left is not None
        assert left.remaining == 5
