"""The engine's side of the pipe, over a step loop of paper."""

import multiprocessing
import threading
from types import SimpleNamespace
from typing import Any, cast

import pytest

from service.core.capacity import Capacity
from service.core.events import JobCancelled, JobFinished, Stepped
from service.core.spec import GenerationSpec
from service.engine.channel import COMMANDS, EVENTS, Channel
from service.engine.process import worker
from service.engine.protocol import Cancel, Command, EngineEvent, Generate, Preview, Shutdown

REQUEST = GenerationSpec(prompt="a cat", steps=2)


class Watching:
    """Who is watched."""

    def __init__(self) -> None:
        self.jobs: set[str] = set()

    def watch(self, job_id, *, wanted) -> None:
        (self.jobs.add if wanted else self.jobs.discard)(job_id)


class PaperLoop:
    """A step loop that counts: a job is finished after as many calls as it has steps."""

    def __init__(self, between_steps=lambda: None) -> None:
        self.left: dict[str, int] = {}
        self.cancelled: list[str] = []
        self.previews = Watching()
        self.adapters = SimpleNamespace(news=lambda: None)
        self.capacities: list[Capacity] = []
        """What is told, the last one first."""
        self.budget = SimpleNamespace(
            news=lambda: self.capacities.pop() if self.capacities else None
        )
        self.tidied: list[bool] = []
        """Whether it was busy, each time."""
        self._between_steps = between_steps

    @property
    def busy(self) -> bool:
        return bool(self.left or self.cancelled)

    def add(self, job_id, request, _epoch) -> None:
        self.left[job_id] = request.steps

    def cancel(self, job_id) -> None:
        if self.left.pop(job_id, None):
            self.cancelled.append(job_id)

    def tidy(self) -> None:
        self.tidied.append(self.busy)

    def step(self) -> list[Any]:
        self._between_steps()
        outcomes: list[Any] = [JobCancelled(job_id=job_id, epoch=1) for job_id in self.cancelled]
        self.cancelled.clear()
        for job_id in list(self.left):
            self.left[job_id] -= 1
            outcomes.append(Stepped(batch_size=1, pixels=1, seconds=0))
            if not self.left[job_id]:
                del self.left[job_id]
                outcomes.append(JobFinished(job_id=job_id, epoch=1, images=()))
        return outcomes


@pytest.fixture
def pipe():
    """Open a pipe: the service's end and the engine's end."""
    one, other = multiprocessing.Pipe()
    ours: Channel[Command, EngineEvent] = Channel(one, EVENTS)
    theirs: Channel[EngineEvent, Command] = Channel(other, COMMANDS)
    yield ours, theirs
    ours.close()
    theirs.close()


def received(connection) -> list[Any]:
    events = []
    while connection.poll(0):
        events.append(connection.receive())
    return events


def test_a_job_is_stepped_until_it_is_finished(pipe):
    """Every step is reported, and the end is."""
    ours, theirs = pipe
    loop: PaperLoop = PaperLoop(
        between_steps=lambda: ours.send(Shutdown()) if loop.left == {"a": 1} else None
    )
    ours.send(Generate(job_id="a", epoch=1, request=REQUEST))
    worker.work(theirs, cast("Any", loop))
    assert [type(event).__name__ for event in received(ours)] == [
        "Stepped",
        "Stepped",
        "JobFinished",
    ]


def test_a_cancel_is_seen_before_the_next_step(pipe):
    """A job cancelled during its first step makes no second one."""
    ours, theirs = pipe
    commands = iter([Cancel(job_id="a"), Shutdown()])
    loop = PaperLoop(between_steps=lambda: ours.send(next(commands)))
    ours.send(Generate(job_id="a", epoch=1, request=REQUEST))
    worker.work(theirs, cast("Any", loop))
    assert [type(event).__name__ for event in received(ours)] == ["Stepped", "JobCancelled"]


def test_a_job_joins_between_two_steps_of_another(pipe):
    """A job that arrives while another runs is stepped beside it, not after it."""
    ours, theirs = pipe
    commands = iter([Generate(job_id="b", epoch=1, request=REQUEST), Shutdown()])
    loop = PaperLoop(between_steps=lambda: ours.send(next(commands)))
    ours.send(Generate(job_id="a", epoch=1, request=REQUEST))
    worker.work(theirs, cast("Any", loop))
    assert loop.left == {"b": 1}
    assert JobFinished(job_id="a", epoch=1, images=()) in received(ours)


def test_an_engine_at_work_tidies_up_between_two_steps(pipe):
    """It is asked to after every step, once what the step made is on its way."""
    ours, theirs = pipe
    loop: PaperLoop = PaperLoop(
        between_steps=lambda: ours.send(Shutdown()) if loop.left == {"a": 1} else None
    )
    ours.send(Generate(job_id="a", epoch=1, request=REQUEST))
    worker.work(theirs, cast("Any", loop))
    assert loop.tidied == [True]


def test_an_engine_with_nothing_to_do_looks_at_its_memory(pipe, monkeypatch):
    """Others may have given some back: else an image refused for it would be so for ever."""
    ours, theirs = pipe
    monkeypatch.setattr(worker, "IDLE_SECONDS", 0.0)
    monkeypatch.setattr(worker, "LOOK_SECONDS", 0.0)
    loop = PaperLoop()
    net = threading.Timer(10, ours.send, [Shutdown()])
    net.start()
    loop.capacities = [Capacity(available=number, needs={}) for number in (2, 1)]
    news = loop.budget.news

    def told():
        capacity = news()
        if capacity is None:
            ours.send(Shutdown())
        return capacity

    monkeypatch.setattr(loop.budget, "news", told)
    worker.work(theirs, cast("Any", loop))
    net.cancel()
    assert [event.available for event in received(ours)] == [1, 2]


def test_an_engine_with_nothing_to_do_tidies_up(pipe, monkeypatch):
    """When no command came for a while."""
    ours, theirs = pipe
    monkeypatch.setattr(worker, "IDLE_SECONDS", 0.0)
    loop = PaperLoop()
    net = threading.Timer(10, ours.send, [Shutdown()])  # If it never tidies, it ends all the same.
    net.start()

    def tidy():
        loop.tidied.append(loop.busy)
        ours.send(Shutdown())

    monkeypatch.setattr(loop, "tidy", tidy)
    worker.work(theirs, cast("Any", loop))
    net.cancel()
    assert loop.tidied == [False]


def test_the_engine_leaves_when_the_service_is_gone(pipe):
    """The end of the pipe ends the work, also without a word."""
    ours, theirs = pipe
    ours.close()
    with pytest.raises((EOFError, OSError)):
        worker.work(theirs, cast("Any", PaperLoop()))


def test_who_wants_previews_is_heard_between_two_steps(pipe):
    """Before and after the job comes."""
    ours, theirs = pipe
    loop = PaperLoop()
    for command in (
        Preview(job_id="a", wanted=True),
        Preview(job_id="b", wanted=True),
        Preview(job_id="a", wanted=False),
        Shutdown(),
    ):
        ours.send(command)
    worker.work(theirs, cast("Any", loop))
    assert loop.previews.jobs == {"b"}
