"""Jobs that an engine went on with while no service heard it."""

import asyncio

from service.config.table import Config
from service.core.events import JobFinished
from service.engine.protocol import EngineAdopted, Held
from service.errors import Cancelled
from service.jobs.dispatch.dispatcher import Dispatcher
from service.jobs.job import Job, JobState
from service.telemetry.metrics import Metrics
from tests.support.jobs.kept_jobs import accepted, kept, over
from tests.support.jobs.scripted_engine import ScriptedEngine, job, settle, submitted


class LastingEngine(ScriptedEngine):
    """Goes on without its service; writes down what is adopted."""

    def __init__(self) -> None:
        super().__init__()
        self.adopted: list[tuple[str, int]] = []
        self.busy = asyncio.Event()

    def generate(self, job_id, request, epoch, inputs=None) -> None:
        super().generate(job_id, request, epoch, inputs)
        self.busy.set()

    def adopt(self, job_id, request, epoch) -> None:
        self.adopted.append((job_id, epoch))


async def started(seconds: float, engine: LastingEngine) -> Dispatcher:
    """Return a dispatcher that waits so long for what engines went on with."""
    dispatcher = Dispatcher([engine], Metrics(), Config(max_concurrent_requests=2))
    dispatcher.adoption_seconds = seconds
    return dispatcher


def ran(epoch: int) -> Job:
    """Return a job as a start finds it that was in its only attempt."""
    found = job()
    found.attempts, found.epoch = 1, epoch
    return found


async def test_a_job_that_runs_is_adopted_and_not_begun_again():
    """Its attempt is the one that it was in, and its end is heard."""
    dispatcher = await started(60, engine := LastingEngine())
    dispatcher.restore(kept_on := ran(3), ran=True)
    await dispatcher.start()
    engine.tell(EngineAdopted(jobs=(Held(job_id=kept_on.id, epoch=3),)))
    await engine.ready()
    await submitted(dispatcher, new := job())
    assert (engine.adopted, engine.started) == ([(kept_on.id, 3)], [new.id])
    assert (kept_on.state, kept_on.attempts, kept_on.epoch) == (JobState.RUNNING, 1, 3)
    await engine.finishes(kept_on)
    assert kept_on.state is JobState.SUCCEEDED
    await dispatcher.stop()


async def test_a_job_that_ran_waits_until_no_engine_can_have_it():
    """Jobs behind it that never ran wait for the known engines only; then it starts, too."""
    dispatcher = await started(60, engine := LastingEngine())
    dispatcher.restore(kept_on := ran(1), ran=True)
    dispatcher.restore(waited := job())
    await dispatcher.start()
    await engine.ready()
    found = [[*engine.started]]
    for release in (dispatcher.engines_heard, dispatcher._release_all):
        release()
        await settle()
        found.append([*engine.started])
    assert found == [[], [waited.id], [waited.id, kept_on.id]]
    assert (kept_on.attempts, kept_on.epoch) == (2, 2)
    await dispatcher.stop()


async def test_where_no_engine_outlives_the_service_nothing_waits():
    """The jobs of an earlier process start at once."""
    dispatcher = await started(0, engine := LastingEngine())
    dispatcher.restore(kept_on := ran(1), ran=True)
    dispatcher.restore(waited := job())
    await dispatcher.start()
    await engine.ready()
    assert engine.started == [kept_on.id, waited.id]
    await dispatcher.stop()


async def test_the_wait_for_engines_ends_by_itself():
    """After so many seconds, whatever else happens."""
    dispatcher = await started(0.01, engine := LastingEngine())
    dispatcher.restore(kept_on := ran(1), ran=True)
    await dispatcher.start()
    await engine.ready()
    async with asyncio.timeout(20):
        await engine.busy.wait()
    assert engine.started == [kept_on.id]
    await dispatcher.stop()


async def test_what_no_job_is_any_more_is_cancelled_there():
    """An unknown job, an attempt that a later one follows, and one that runs elsewhere."""
    dispatcher = await started(60, engine := LastingEngine())
    dispatcher.restore(later := ran(2), ran=True)
    await dispatcher.start()
    other = LastingEngine()
    dispatcher.join(other)
    await settle()
    await other.ready()
    await submitted(dispatcher, elsewhere := job())
    held = [("unknown", 1), (later.id, 1), (elsewhere.id, 1)]
    engine.tell(EngineAdopted(jobs=tuple(Held(job_id=each, epoch=epoch) for each, epoch in held)))
    assert (engine.adopted, engine.cancelled) == ([], ["unknown", later.id, elsewhere.id])
    assert (later.state, elsewhere.state) == (JobState.QUEUED, JobState.RUNNING)
    await dispatcher.stop()


async def test_an_attempt_whose_begin_was_written_nowhere_is_adopted():
    """The service was killed in between: no second attempt gets the same number."""
    dispatcher = await started(60, engine := LastingEngine())
    dispatcher.restore(begun := job())
    await dispatcher.start()
    engine.tell(EngineAdopted(jobs=(Held(job_id=begun.id, epoch=1),)))
    await engine.ready()
    assert (engine.adopted, engine.started, engine.cancelled) == ([(begun.id, 1)], [], [])
    assert (begun.state, begun.attempts, begun.epoch) == (JobState.RUNNING, 1, 1)
    await engine.finishes(begun)
    assert begun.state is JobState.SUCCEEDED
    await dispatcher.stop()


async def test_a_job_whose_begin_was_written_nowhere_is_begun_nowhere_else():
    """Another engine that is ready first starts new jobs, and not that one."""
    dispatcher = await started(60, engine := LastingEngine())
    dispatcher.restore(begun := job())
    await dispatcher.start()
    dispatcher.join(other := LastingEngine())
    await settle()
    await other.ready()
    await submitted(dispatcher, new := job())
    assert other.started == [new.id]
    engine.tell(EngineAdopted(jobs=(Held(job_id=begun.id, epoch=1),)))
    dispatcher.engines_heard()
    await settle()
    assert (engine.adopted, other.started) == ([(begun.id, 1)], [new.id])
    assert (begun.state, begun.attempts) == (JobState.RUNNING, 1)
    await dispatcher.stop()


async def test_a_number_of_an_attempt_is_not_given_again():
    """Also where the job was begun elsewhere before its engine was heard."""
    dispatcher = await started(60, engine := LastingEngine())
    await dispatcher.start()
    dispatcher.join(other := LastingEngine())
    await settle()
    await other.ready()
    await submitted(dispatcher, elsewhere := job())
    engine.tell(EngineAdopted(jobs=(Held(job_id=elsewhere.id, epoch=2),)))
    await other.dies()
    await engine.ready()
    assert (engine.cancelled, engine.started) == ([elsewhere.id], [elsewhere.id])
    assert (elsewhere.attempts, elsewhere.epoch) == (2, 3)
    await dispatcher.stop()


async def test_what_runs_there_as_far_as_is_known_stays():
    """The engine was silent for a while only."""
    dispatcher = await started(0, engine := LastingEngine())
    await dispatcher.start()
    await engine.ready()
    await submitted(dispatcher, running := job())
    engine.tell(EngineAdopted(jobs=(Held(job_id=running.id, epoch=1),)))
    assert (engine.adopted, engine.cancelled) == ([], [])
    await engine.finishes(running)
    assert running.state is JobState.SUCCEEDED
    await dispatcher.stop()


async def test_what_does_not_run_there_any_more_runs_again():
    """Without the others: the engine lost an attempt while nobody heard it."""
    dispatcher = await started(0, engine := LastingEngine())
    await dispatcher.start()
    await engine.ready()
    await submitted(dispatcher, stays := job(), lost := job(), left := job())
    dispatcher.cancel(left, Cancelled())
    engine.tell(EngineAdopted(jobs=(Held(job_id=stays.id, epoch=1),)))
    await settle()
    assert (stays.attempts, lost.attempts, lost.epoch) == (1, 2, 2)
    assert engine.started == [stays.id, lost.id, lost.id]
    engine.tell(EngineAdopted(jobs=()))
    await settle()
    assert [each.attempts for each in (stays, lost)] == [2, 2]
    await dispatcher.stop()


async def test_the_next_start_adopts_what_runs_with_its_row(tmp_path):
    """The row is running in the attempt that it was in, and its end is written for that one."""
    async with asyncio.timeout(20):
        before = await started(60, first := LastingEngine())
        folder = kept(tmp_path, before)
        async with folder.opened():
            await before.start()
            await first.ready()
            job_id = (await accepted(folder)).id
            await settle()
        after = await started(60, second := LastingEngine())
        folder = kept(tmp_path, after)
        async with folder.opened():
            await after.start()
            await second.ready()
            assert second.started == []
            second.tell(EngineAdopted(jobs=(Held(job_id=job_id, epoch=1),)))
            await settle()
            row, _ = await folder.jobs.get(job_id, "anonymous")
            assert (row.state, row.attempts, row.epoch) == ("running", 1, 1)
            second.tell(JobFinished(job_id=job_id, epoch=1, images=()))
            ended = await over(folder, job_id)
            assert (ended.state, ended.attempts) == ("succeeded", 1)
            await after.stop()
