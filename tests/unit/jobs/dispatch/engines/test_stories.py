"""Random stories of several engines: what must hold after every event."""

import random

import pytest

from service.config.table import Config
from service.core.spec import GenerationSpec
from service.engine.base import EngineState
from service.errors import Cancelled, QueueFull
from service.jobs.dispatch.dispatcher import Dispatcher
from service.jobs.job import Job, JobState
from service.telemetry.metrics import Metrics
from tests.support.jobs.scripted_engine import settle
from tests.support.simulation.fake_engine import FakeEngine

EVENTS = 250
SIDES = (256, 512, 768)
KEYS = ("anna", "bob")


class Story:
    """A dispatcher, its engines and its clients, who do anything."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)  # noqa: S311 - it draws no secret
        self.engines = [FakeEngine(step_seconds=None) for _ in range(3)]
        config = Config(max_concurrent_requests=2, queue_size=8)
        weights = dict.fromkeys(KEYS, 1)
        self.dispatcher = Dispatcher(self.engines, Metrics(), config, weights=weights)
        self.jobs: list[Job] = []
        self.most = config.max_attempts

    async def goes_on(self) -> None:
        """Let one thing happen, and all that follows."""
        await self.chance.choices(
            [self.submits, self.steps, self.cancels, self.interrupts, self.dies, self.moves],
            [8, 12, 2, 1, 1, 1],
        )[0]()
        await settle()

    async def submits(self) -> None:
        """Send a job, which may be refused."""
        side, steps = self.chance.choice(SIDES), self.chance.choice((1, 2, 6))
        request = GenerationSpec(prompt="", width=side, height=side, steps=steps)
        job = Job(request=request, owner=self.chance.choice(KEYS))
        try:
            self.dispatcher.submit(job)
        except QueueFull:
            return
        self.jobs.append(job)

    async def steps(self) -> None:
        """Let an engine do a step."""
        await self.chance.choice(self.engines).step()

    async def cancels(self) -> None:
        """Cancel a job."""
        if live := self.live:
            self.dispatcher.cancel(self.chance.choice(live), Cancelled())

    async def interrupts(self) -> None:
        """End a job early."""
        if live := self.live:
            self.dispatcher.interrupt(self.chance.choice(live))

    async def dies(self) -> None:
        """Let an engine end; it is started again."""
        self.chance.choice(self.engines).crash()

    async def moves(self) -> None:
        """Let an engine leave, or another one join."""
        if len(self.engines) > 1 and self.chance.random() < 0.5:
            self.dispatcher.leave(self.chance.choice(self.engines))
        elif len(self.engines) < 5:
            self.engines.append(engine := FakeEngine(step_seconds=None))
            self.dispatcher.join(engine)
        await settle()
        self.engines = [each for each in self.engines if each.state is not EngineState.STOPPED]
        if not self.engines:
            self.engines.append(engine := FakeEngine(step_seconds=None))
            self.dispatcher.join(engine)

    @property
    def live(self) -> list[Job]:
        """Jobs that are not over."""
        return [each for each in self.jobs if not each.final]

    def holds(self) -> None:
        """Check what must be so at any time."""
        slots, queue = self.dispatcher.slots, self.dispatcher._queue
        assert {slot for slot in slots if slot.has_room} <= self.dispatcher._pool.free
        places = [job for slot in slots for job in slot.jobs.values()]
        assert sorted(each.id for each in (*places, *queue.waiting)) == sorted(
            each.id for each in self.live
        )
        for slot in slots:
            for job in slot.jobs.values():
                assert (job.state, job.engine) == (JobState.RUNNING, slot.name)
            if isinstance(slot.engine, FakeEngine):
                assert {*slot.engine.batch} == {*slot.jobs}
        assert all(each.attempts <= self.most for each in self.jobs)
        if any(not each.attempts for each in queue.waiting):
            assert not [slot.name for slot in slots if slot.has_room and not slot.jobs]
        assert len({slot.name for slot in slots}) == len(slots)
        assert not all(slot.retiring for slot in slots)


@pytest.mark.parametrize("seed", range(6))
async def test_no_job_is_lost_or_run_twice_whatever_happens(seed):
    """No engine is idle next to a job that never lost one; all of them end in the end."""
    story = Story(seed)
    await story.dispatcher.start()
    await settle()
    for _ in range(EVENTS):
        await story.goes_on()
        story.holds()
    while story.live:
        for engine in story.engines:
            await engine.step()
        await settle()
        story.holds()
    assert len(story.jobs) > EVENTS / 10
    assert {each.outcome for each in story.jobs} <= {"succeeded", "cancelled", "failed"}
    assert sum(each.outcome == "succeeded" for each in story.jobs) > len(story.jobs) / 3
    await story.dispatcher.stop()
