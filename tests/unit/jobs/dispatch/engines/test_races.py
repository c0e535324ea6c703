"""Cancels and deletions that meet a start, with several engines.

Each is a fault that others found when one queue began to feed several GPUs (InvokeAI #9263).
"""

import asyncio
from dataclasses import replace

import pytest

from service.config.table import Config
from service.core.events import JobFinished
from service.errors import Cancelled, NotFound
from service.jobs.dispatch.dispatcher import Dispatcher
from service.jobs.job import Job, JobState
from service.jobs.observer import Observer
from service.telemetry.metrics import Metrics
from tests.support.jobs.kept_jobs import REQUEST, accepted, kept
from tests.support.jobs.scripted_engine import ScriptedEngine, job, settle, submitted, value
from tests.support.simulation.fake_engine import FakeEngine


@pytest.fixture(params=[2, 3])
async def running(request):
    """Start a dispatcher over engines that step when they are told, one job each."""
    engines = [FakeEngine(step_seconds=None) for _ in range(request.param)]
    dispatcher = Dispatcher(engines, Metrics(), Config(max_concurrent_requests=1))
    await dispatcher.start()
    yield dispatcher, engines
    await dispatcher.stop()


async def test_removing_the_jobs_of_a_key_stops_those_of_all_engines(tmp_path, running):
    """Not only the job that started last; those that wait end, too, and none starts."""
    dispatcher, engines = running
    folder = kept(tmp_path, dispatcher)
    async with asyncio.timeout(20), folder.opened():
        jobs = [await accepted(folder, replace(REQUEST, steps=9)) for _ in range(len(engines) + 2)]
        for engine in engines:
            await engine.jobs(1)
        assert await folder.jobs.remove("anonymous") == len(jobs)
        assert [[*engine.batch] for engine in engines] == [[]] * len(engines)
        assert {each.state for each in jobs} == {JobState.CANCELLED}
        assert (dispatcher.depth, dispatcher.running) == (0, 0)
        for each in jobs:
            with pytest.raises(NotFound):
                await folder.jobs.get(each.id, "anonymous")


async def test_giving_up_stops_the_jobs_of_all_engines(running):
    """At the end of the shutdown time."""
    dispatcher, engines = running
    await submitted(dispatcher, *(jobs := [job() for _ in range(len(engines) + 2)]))
    dispatcher.give_up()
    assert [[*engine.batch] for engine in engines] == [[]] * len(engines)
    assert {each.state for each in jobs} == {JobState.CANCELLED}


class Canceller(Observer):
    """Cancels a job in the moment in which it is taken from the queue."""

    def __init__(self, dispatcher: Dispatcher, job: Job) -> None:
        self.dispatcher, self.job = dispatcher, job

    def begun(self, job: Job) -> None:
        if job is self.job:
            self.dispatcher.cancel(job, Cancelled())


class Listed(ScriptedEngine):
    """Writes down in which order it is told what."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[str, str]] = []

    def generate(self, job_id, request, epoch, inputs=None) -> None:
        super().generate(job_id, request, epoch, inputs)
        self.told.append(("generate", job_id))

    def cancel(self, job_id) -> None:
        super().cancel(job_id)
        self.told.append(("cancel", job_id))


async def test_a_cancel_in_the_moment_of_the_start_is_not_lost():
    """The engine knows the job when it is told to cancel it, and nothing of it runs on."""
    engines = [Listed(), Listed()]
    dispatcher = Dispatcher(engines, Metrics(), Config(max_concurrent_requests=1))
    await dispatcher.start()
    for engine in engines:
        await engine.ready()
    a, b, c = job(), job(), job()
    dispatcher.observer = Canceller(dispatcher, b)
    await submitted(dispatcher, a, b, c)
    assert engines[1].told == [("generate", b.id), ("cancel", b.id), ("generate", c.id)]
    assert (b.state, c.state, dispatcher.running) == (JobState.CANCELLED, JobState.RUNNING, 2)
    await dispatcher.stop()


async def test_a_cancel_before_the_dispatcher_had_its_turn_is_not_lost(running):
    """It was accepted, an engine is free, and nothing has started."""
    dispatcher, engines = running
    dispatcher.submit(gone := job())
    dispatcher.cancel(gone, Cancelled())
    await settle()
    assert [engine.steps for engine in engines] == [0] * len(engines)
    assert (gone.state, dispatcher.running) == (JobState.CANCELLED, 0)
    await submitted(dispatcher, after := job())
    assert after.state is JobState.RUNNING


async def test_a_cancel_while_the_job_waits_for_another_engine_is_not_lost(pair, engines):
    """It lost its engine, and ends before another one has it."""
    first, second = engines
    a, b = job(), job()
    await submitted(pair, a, b)
    await second.dies()
    pair.cancel(b, Cancelled())
    await second.ready()
    await first.finishes(a)
    assert (b.state, first.started, second.started) == (JobState.CANCELLED, [a.id], [b.id])


async def test_an_end_that_crosses_a_cancel_gives_its_place_back_once(pair, engines, metrics):
    """The job is over for its owner; the engine has room for one job more, not for two."""
    first, _ = engines
    a, b, c, d = (job() for _ in range(4))
    await submitted(pair, a, b, c, d)
    pair.cancel(a, Cancelled())
    await settle()
    assert first.started == [a.id, c.id]
    first.tell(JobFinished(job_id=a.id, epoch=1, images=()))
    await settle()
    assert (first.started, d.state) == ([a.id, c.id], JobState.QUEUED)
    assert value(metrics, "sd_jobs_running", engine="0") == 1


async def test_a_job_that_is_deleted_while_it_runs_comes_back_nowhere(tmp_path, running):
    """Though its engine ends in the same moment: what was deleted does not run again."""
    dispatcher, engines = running
    folder = kept(tmp_path, dispatcher)
    async with asyncio.timeout(20), folder.opened():
        gone = await accepted(folder, replace(REQUEST, steps=9))
        stays = await accepted(folder, replace(REQUEST, steps=9))
        await engines[1].jobs(1)
        removing = asyncio.create_task(folder.jobs.cancel(gone.id, "anonymous"))
        await settle()
        engines[0].crash()
        await removing
        await settle()
        assert (gone.state, stays.state) == (JobState.CANCELLED, JobState.RUNNING)
        assert not any(gone.id in engine.batch for engine in engines)
