"""How often the watchers of waiting jobs are told where they stand."""

import asyncio
from itertools import pairwise

import pytest

from service.core.spec import GenerationSpec
from service.jobs.durable.live_job import Durability, LiveJob, Terms, new_job
from service.jobs.durable.positions import PositionEvents
from service.jobs.queue.forecast import Position
from tests.support.simulation.clock import VirtualLoop


class Line:
    """Waiting jobs in an order that the test changes, each with a watcher."""

    def __init__(self, loop: VirtualLoop, jobs: int) -> None:
        self.loop = loop
        self.waiting = [self._job() for _ in range(jobs)]
        self.told: dict[str, list[tuple[float, object]]] = {}
        self.computed: list[float] = []
        live = {each.job.id: each for each in self.waiting}
        self.positions = PositionEvents(live, self._position)

    @staticmethod
    def _job() -> LiveJob:
        return new_job(GenerationSpec(prompt="a cat"), "anna", Durability.PROMISED, Terms())

    def _position(self, job):
        self.computed.append(self.loop.now)
        place = [each.job for each in self.waiting].index(job)
        return Position(number=place + 1, start_seconds=place * 10.0)

    async def _watches(self, live: LiveJob) -> None:
        self.positions.refresh(live)
        told = self.told.setdefault(live.job.id, [])
        async for event in live.events.after():
            told.append((self.loop.now, event.data.get("position", event.kind)))

    def watch(self, live: LiveJob) -> list[tuple[float, object]]:
        """Follow a job, and return what its watcher is told and when."""
        self.loop.begin(self._watches(live))
        self.loop.settle()
        return self.told[live.job.id]

    def starts(self, live: LiveJob) -> None:
        """Let a job start, which moves those behind it."""
        self.waiting.remove(live)

        def started() -> None:
            live.job.begin()
            live.events.say("started", {})
            self.positions.moved()

        self.loop.call(started)


@pytest.fixture
def loop():
    made = VirtualLoop()
    asyncio.set_event_loop(made)
    yield made
    made.end()


@pytest.fixture
def line(loop):
    return Line(loop, 40)


def test_a_watcher_is_told_its_position_at_most_once_a_second(loop, line):
    """Thirty starts in three seconds: it is told of a few of them, and of the last."""
    told = line.watch(line.waiting[-1])
    for first in line.waiting[:30]:
        line.starts(first)
        loop.advance(0.1)
    loop.advance(5.0)
    assert told[0] == (0.0, 40)
    assert told[-1][1] == 10
    times = [at for at, _ in told]
    assert 4 <= len(told) <= 5
    assert all(b - a >= 1.0 for a, b in pairwise(times))


def test_the_positions_of_all_are_computed_at_most_twice_a_second(loop, line):
    """However many jobs are watched, and whenever each was told last."""
    for late in line.waiting[30:]:
        line.watch(late)
        loop.advance(0.07)
    line.computed.clear()
    for first in line.waiting[:30]:
        line.starts(first)
        loop.advance(0.1)
    rounds = sorted(set(line.computed))
    assert all(b - a >= 0.5 - 1e-9 for a, b in pairwise(rounds))
    assert len(rounds) <= 7


def test_the_last_change_is_always_told(loop, line):
    """A position that could not be told at once is told a little later, and then all is quiet."""
    told = line.watch(line.waiting[-1])
    loop.advance(0.2)
    line.starts(line.waiting[0])
    loop.advance(0.1)
    assert told == [(0.0, 40)]
    loop.advance(2.0)
    assert [place for _, place in told] == [40, 39]
    line.computed.clear()
    loop.advance(60.0)
    assert line.computed == []


def test_a_start_is_told_at_once(loop, line):
    """A position that was due is dropped: what it was does not matter any more."""
    told = line.watch(line.waiting[1])
    loop.advance(0.1)
    line.starts(line.waiting[0])
    line.starts(line.waiting[0])
    assert told[-1] == (loop.now, "started")
    loop.advance(5.0)
    assert [each for _, each in told] == [2, "started"]


def test_who_begins_to_watch_just_after_a_change_is_told_of_it(loop, line):
    """Somebody asked a moment before, so it cannot be told at once."""
    last = line.waiting[-1]
    loop.call(lambda: line.positions.refresh(last))
    line.starts(line.waiting[0])
    loop.advance(0.3)
    told = line.watch(last)
    loop.advance(2.0)
    assert [place for _, place in told] == [40, 39]


def test_who_asks_without_watching_gets_a_new_position_each_second(loop, line):
    """As a client does that polls the job."""
    last = line.waiting[-1]
    seen = []
    for _ in range(4):
        line.starts(line.waiting[0])
        loop.call(lambda: line.positions.refresh(last))
        seen.append(last.events.newest.data["position"])
        loop.advance(0.5)
    assert seen == [39, 39, 37, 37]
