"""The book of durable jobs, where the disk does not take what it shall hold."""

import asyncio
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from service.config import Config
from service.diffusion.generation import GenerationRequest
from service.engine.fake import FakeEngine
from service.errors import Cancelled, JobExpired, QueueFull, ServiceError, StoreUnavailable
from service.jobs import durable, endings, figures, usage
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


@pytest.mark.usefixtures("impatient")
async def test_a_locked_file_refuses_all_who_wait_at_once(tmp_path, monkeypatch):
    """They wait for it together: the last one no longer than the first."""
    engine = FakeEngine(step_seconds=None)
    consumer = Consumer(engine, Metrics(), Config())
    jobs = [Job(request=REQUEST) for _ in range(8)]
    folder = kept(tmp_path, consumer)
    add, all_there = folder.store.add, asyncio.Barrier(len(jobs))

    async def together(stored):
        await all_there.wait()
        return await add(stored)

    monkeypatch.setattr(folder.store, "add", together)
    async with asyncio.timeout(20), folder.opened():
        await consumer.start()
        other = sqlite3.connect(tmp_path / durable.FILE)
        other.execute("BEGIN IMMEDIATE")
        ends = await asyncio.gather(
            *(folder.book.accept(job, row(job), lambda: None) for job in jobs),
            return_exceptions=True,
        )
        other.close()
        assert [type(end) for end in ends] == [StoreUnavailable] * len(jobs)
        assert folder.book.entries == {}
        assert all(job.final for job in jobs)
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
                assert entry.events.newest.kind == "queued"
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


@pytest.mark.parametrize("part", ["sweep", "figures", "usage"])
async def test_what_runs_beside_the_jobs_survives_a_mistake(tmp_path, monkeypatch, part):
    """It is logged, and the next turn is as good as any."""
    for module, name in ((durable, "SWEEP_SECONDS"), (figures, "SECONDS")):
        monkeypatch.setattr(module, name, 0)
    monkeypatch.setattr(usage, "RETRY_SECONDS", 0)
    consumer = Consumer(FakeEngine(), Metrics(), Config())
    folder = kept(tmp_path, consumer)
    holder, name = {
        "sweep": (folder.results, "sweep"),
        "figures": (folder.store, "counts"),
        "usage": (folder._usage, "_flush"),
    }[part]
    works, turns, again = getattr(holder, name), [], asyncio.Event()
    loop = asyncio.get_running_loop()

    def mistaken(*args):
        turns.append(part)
        if len(turns) == 1:
            raise RuntimeError("a mistake")
        loop.call_soon_threadsafe(again.set)
        return works(*args)

    monkeypatch.setattr(holder, name, mistaken)
    with capture_logs() as logs:
        async with asyncio.timeout(20), folder.opened():
            folder._usage._kept("alice", 1, 0)
            await again.wait()
    said = {"sweep": "sweep_failed", "figures": "figures_failed", "usage": "usage_not_stored"}
    assert [line["event"] for line in logs if line.get("exc_info")] == [said[part]]
