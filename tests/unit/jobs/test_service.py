"""How jobs are submitted, also where the disk does not take them."""

import asyncio
import sqlite3
from dataclasses import replace

import pytest

from service.access.allowance import Allowance, Limits
from service.config.table import Config
from service.errors import Cancelled, JobsOff, QueueFull, RequestTimedOut, StoreUnavailable
from service.jobs.dispatch.dispatcher import Dispatcher
from service.jobs.durable import wiring
from service.jobs.durable.live_job import Durability, Terms
from service.jobs.inputs.bounds import UploadBounds
from service.jobs.inputs.memory import MemoryInputs
from service.jobs.inputs.of_jobs import JobInputs
from service.jobs.job import Job, JobState
from service.jobs.service import JobService
from service.telemetry.metrics import Metrics
from tests.support.jobs.kept_jobs import REQUEST, accepted, kept
from tests.support.jobs.scripted_engine import settle
from tests.support.simulation.fake_engine import FakeEngine


async def test_a_job_that_slips_in_beside_a_full_batch_begins_on_the_disk(tmp_path):
    """It begins within its acceptance: the attempt counts, and who watches is told."""
    engine = FakeEngine(step_seconds=None)
    dispatcher = Dispatcher([engine], Metrics(), Config(max_concurrent_requests=1))
    folder = kept(tmp_path, dispatcher)

    async def watched(live):
        return [event.kind async for event in folder.jobs.events(live)]

    async with asyncio.timeout(20), folder.opened():
        await dispatcher.start()
        long = await accepted(folder, replace(REQUEST, steps=50))
        await engine.jobs(1)
        short = await accepted(folder)
        assert set(engine.batch) == {long.id, short.id}
        await folder.store.counts()  # Behind the begin, whose task runs meanwhile.
        begun, live = await folder.jobs.get(short.id, short.owner)
        assert (begun.state, begun.attempts) == (JobState.RUNNING, 1)
        assert begun.started_at is not None
        kinds = asyncio.create_task(watched(live))
        await engine.step()
        assert (await kinds)[0] == "started"
        await dispatcher.stop()


@pytest.mark.parametrize("durability", Durability)
@pytest.mark.parametrize("error", [QueueFull("no place"), RuntimeError("a mistake")])
async def test_a_job_that_is_refused_leaves_nothing(tmp_path, monkeypatch, error, durability):
    """Neither a job nor a charge, whatever the refusal is."""
    dispatcher = Dispatcher([FakeEngine()], Metrics(), Config())
    allowance, limits = Allowance(), Limits(images_per_day=5)
    terms = Terms(charge=lambda: allowance.charge("anonymous", 1, limits))
    folder = kept(tmp_path, dispatcher)

    def refuse(_job):
        raise error

    monkeypatch.setattr(dispatcher, "submit", refuse)
    async with asyncio.timeout(20), folder.opened():
        with pytest.raises(type(error)):
            await folder.jobs.submit(REQUEST, "anonymous", durability, terms)
        assert folder.jobs.live == {}
        left = allowance.images_left("anonymous", limits)
        assert left is not None
        assert left.remaining == 5


@pytest.mark.usefixtures("impatient")
async def test_a_locked_file_refuses_all_who_wait_at_once(tmp_path, monkeypatch):
    """They wait for it together: the last one no longer than the first."""
    engine = FakeEngine(step_seconds=None)
    dispatcher = Dispatcher([engine], Metrics(), Config())
    jobs: list[Job] = []
    folder = kept(tmp_path, dispatcher)
    add, all_there = folder.store.add, asyncio.Barrier(8)

    async def together(stored):
        jobs.append(folder.jobs.live[stored.id].job)
        await all_there.wait()
        return await add(stored)

    monkeypatch.setattr(folder.store, "add", together)
    async with asyncio.timeout(20), folder.opened():
        await dispatcher.start()
        other = sqlite3.connect(tmp_path / wiring.FILE)
        other.execute("BEGIN IMMEDIATE")
        ends = await asyncio.gather(
            *(accepted(folder) for _ in range(8)),
            return_exceptions=True,
        )
        other.close()
        assert [type(end) for end in ends] == [StoreUnavailable] * 8
        assert len(jobs) == 8
        assert folder.jobs.live == {}
        assert all(job.final for job in jobs)
        await dispatcher.stop()


@pytest.fixture
async def jobs():
    """Start a service without a folder, over an engine whose steps the test decides."""
    engine = FakeEngine(step_seconds=None)
    dispatcher = Dispatcher([engine], Metrics(), Config(max_concurrent_requests=1))
    made = JobService(dispatcher, Metrics(), JobInputs(MemoryInputs(UploadBounds(2**20))))
    await dispatcher.start()
    async with asyncio.timeout(20):
        yield made, engine
    await dispatcher.stop()


async def test_a_job_of_which_nothing_is_kept_has_events_too(jobs):
    """From its place in the queue to its end, with the images in memory."""
    service, engine = jobs
    with await service.submit(REQUEST, "anna", Durability.NONE) as first:
        await engine.jobs(1)
        with await service.submit(REQUEST, "anna", Durability.NONE) as handle:
            kinds: list[str] = []
            watched = asyncio.Event()

            async def watch() -> None:
                async for event in handle.events():
                    kinds.append(event.kind)
                    watched.set()

            watching = asyncio.create_task(watch())
            await watched.wait()
            await engine.step()
            await first.wait()
            await engine.jobs(1)
            await engine.step()
            done = await handle.wait()
            await watching
    assert kinds == ["queued", "started", "step", "finished"]
    assert (done.state, done.attempts, done.id) == (JobState.SUCCEEDED, 1, handle.stored.id)
    assert handle.finished is not None
    assert len(handle.finished[1].images) == 1
    assert service.live == {}


@pytest.mark.parametrize("begun", [True, False])
async def test_a_job_of_which_nothing_is_kept_ends_with_its_client(jobs, begun):
    """For the reason that its client had."""
    service, engine = jobs
    terms = Terms(gone=RequestTimedOut)
    with await service.submit(REQUEST, "anna", Durability.NONE, terms) as handle:
        if begun:
            await engine.jobs(1)
    with pytest.raises(RequestTimedOut):
        await handle.wait()
    assert [event.kind async for event in handle.events()][-1] == "failed"
    assert service.live == {}


async def test_a_client_that_is_gone_before_the_acceptance_leaves_no_job(jobs):
    """What was submitted for it ends at once."""
    service, engine = jobs
    submitting = asyncio.create_task(service.submit(REQUEST, "anna", Durability.NONE))
    await asyncio.sleep(0)
    submitting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await submitting
    await settle()
    assert (service.live, engine.batch) == ({}, {})


async def test_a_handle_cancels_its_job(jobs):
    """With the error that it is given."""
    service, engine = jobs
    with await service.submit(REQUEST, "anna", Durability.NONE) as handle:
        await engine.jobs(1)
        handle.cancel(Cancelled("It was enough."))
        with pytest.raises(Cancelled, match="enough"):
            await handle.wait()
    assert engine.cancelled == [handle.stored.id]


@pytest.mark.parametrize("durability", [Durability.KEYED, Durability.PROMISED])
async def test_without_a_folder_no_job_is_durable(jobs, durability):
    """The refusal names the setting, and leaves nothing."""
    service, _ = jobs
    with pytest.raises(JobsOff, match="DATA_DIR"):
        await service.submit(REQUEST, "anna", durability)
    assert service.live == {}
