"""How jobs come into the book, also where the disk does not take them."""

import asyncio
import sqlite3
from dataclasses import replace

import pytest

from service.config import Config
from service.engine.fake import FakeEngine
from service.errors import QueueFull, StoreUnavailable
from service.jobs import durable
from service.jobs.allowance import Allowance, Limits
from service.jobs.consumer import Consumer
from service.jobs.job import Job, JobState
from service.telemetry.metrics import Metrics
from tests.kept_jobs import REQUEST, kept, row


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
