"""The engine's side of the pipe, over a pool of paper."""

import multiprocessing
import threading
from typing import Any, cast

import pytest

from service.core.capacity import Capacity
from service.core.events import JobCancelled, JobFinished, Stepped, UnloadReason
from service.core.spec import GenerationSpec
from service.engine.channel import COMMANDS, EVENTS, Channel
from service.engine.process import worker
from service.engine.protocol import (
    Cancel,
    Command,
    EngineEvent,
    Generate,
    Interrupt,
    LoadModel,
    Preview,
    Shutdown,
    UnloadModel,
)

REQUEST = GenerationSpec(prompt="a cat", steps=2)


class PaperPool:
    """A pool that counts: a job is finished after as many calls as it has steps."""

    def __init__(self, between_steps=lambda: None) -> None:
        self.left: dict[str, int] = {}
        self.cancelled: list[str] = []
        self.interrupted: list[str] = []
        self.watched: set[str] = set()
        self.models: list[tuple[str, ...]] = []
        """What was to be loaded or unloaded."""
        self.capacities: list[Capacity] = []
        """What is told, the last one first."""
        self.tidied: list[bool] = []
        """Whether it was busy, each time."""
        self._between_steps = between_steps

    @property
    def busy(self) -> bool:
        return bool(self.left or self.cancelled)

    def add(self, job_id, request, _epoch, _inputs) -> None:
        self.left[job_id] = request.steps

    def cancel(self, job_id) -> None:
        if self.left.pop(job_id, None):
            self.cancelled.append(job_id)

    def interrupt(self, job_id) -> None:
        self.interrupted.append(job_id)

    def watch(self, job_id, *, wanted) -> None:
        (self.watched.add if wanted else self.watched.discard)(job_id)

    def load(self, model_id) -> None:
        self.models.append((model_id,))

    def unload(self, model_id, reason) -> None:
        self.models.append((model_id, reason))

    def news(self) -> list[Any]:
        return [self.capacities.pop()] if self.capacities else []

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
    pool: PaperPool = PaperPool(
        between_steps=lambda: ours.send(Shutdown()) if pool.left == {"a": 1} else None
    )
    ours.send(Generate(job_id="a", epoch=1, request=REQUEST))
    worker.work(theirs, cast("Any", pool))
    assert [type(event).__name__ for event in received(ours)] == [
        "Stepped",
        "Stepped",
        "JobFinished",
    ]


def test_a_cancel_is_seen_before_the_next_step(pipe):
    """A job cancelled during its first step makes no second one."""
    ours, theirs = pipe
    commands = iter([Cancel(job_id="a"), Shutdown()])
    pool = PaperPool(between_steps=lambda: ours.send(next(commands)))
    ours.send(Generate(job_id="a", epoch=1, request=REQUEST))
    worker.work(theirs, cast("Any", pool))
    assert [type(event).__name__ for event in received(ours)] == ["Stepped", "JobCancelled"]


def test_an_interrupt_is_seen_before_the_next_step(pipe):
    """The pool is told, and the job goes on until the pool says how it ended."""
    ours, theirs = pipe
    commands = iter([Interrupt(job_id="a"), Shutdown()])
    pool = PaperPool(between_steps=lambda: ours.send(next(commands)))
    ours.send(Generate(job_id="a", epoch=1, request=REQUEST))
    worker.work(theirs, cast("Any", pool))
    assert pool.interrupted == ["a"]


def test_a_job_joins_between_two_steps_of_another(pipe):
    """A job that arrives while another runs is stepped beside it, not after it."""
    ours, theirs = pipe
    commands = iter([Generate(job_id="b", epoch=1, request=REQUEST), Shutdown()])
    pool = PaperPool(between_steps=lambda: ours.send(next(commands)))
    ours.send(Generate(job_id="a", epoch=1, request=REQUEST))
    worker.work(theirs, cast("Any", pool))
    assert pool.left == {"b": 1}
    assert JobFinished(job_id="a", epoch=1, images=()) in received(ours)


def test_an_engine_at_work_tidies_up_between_two_steps(pipe):
    """It is asked to after every step, once what the step made is on its way."""
    ours, theirs = pipe
    pool: PaperPool = PaperPool(
        between_steps=lambda: ours.send(Shutdown()) if pool.left == {"a": 1} else None
    )
    ours.send(Generate(job_id="a", epoch=1, request=REQUEST))
    worker.work(theirs, cast("Any", pool))
    assert pool.tidied == [True]


def test_an_engine_with_nothing_to_do_looks_at_its_memory(pipe, monkeypatch):
    """Others may have given some back: else an image refused for it would be so for ever."""
    ours, theirs = pipe
    monkeypatch.setattr(worker, "IDLE_SECONDS", 0.0)
    monkeypatch.setattr(worker, "LOOK_SECONDS", 0.0)
    pool = PaperPool()
    net = threading.Timer(10, ours.send, [Shutdown()])
    net.start()
    pool.capacities = [Capacity(available=number, needs={}) for number in (2, 1)]
    news = pool.news

    def told():
        capacities = news()
        if not capacities:
            ours.send(Shutdown())
        return capacities

    monkeypatch.setattr(pool, "news", told)
    worker.work(theirs, cast("Any", pool))
    net.cancel()
    assert [event.available for event in received(ours)] == [1, 2]


def test_an_engine_with_nothing_to_do_tidies_up(pipe, monkeypatch):
    """When no command came for a while."""
    ours, theirs = pipe
    monkeypatch.setattr(worker, "IDLE_SECONDS", 0.0)
    pool = PaperPool()
    net = threading.Timer(10, ours.send, [Shutdown()])  # If it never tidies, it ends all the same.
    net.start()

    def tidy():
        pool.tidied.append(pool.busy)
        ours.send(Shutdown())

    monkeypatch.setattr(pool, "tidy", tidy)
    worker.work(theirs, cast("Any", pool))
    net.cancel()
    assert pool.tidied == [False]


def test_the_engine_leaves_when_the_service_is_gone(pipe):
    """The end of the pipe ends the work, also without a word."""
    ours, theirs = pipe
    ours.close()
    with pytest.raises((EOFError, OSError)):
        worker.work(theirs, cast("Any", PaperPool()))


def test_who_wants_previews_is_heard_between_two_steps(pipe):
    """Before and after the job comes."""
    ours, theirs = pipe
    pool = PaperPool()
    for command in (
        Preview(job_id="a", wanted=True),
        Preview(job_id="b", wanted=True),
        Preview(job_id="a", wanted=False),
        Shutdown(),
    ):
        ours.send(command)
    worker.work(theirs, cast("Any", pool))
    assert pool.watched == {"b"}


def test_models_are_loaded_and_unloaded_in_the_order_of_the_commands(pipe):
    """Between two steps."""
    ours, theirs = pipe
    pool = PaperPool()
    for command in (
        LoadModel(model_id="m"),
        UnloadModel(model_id="m", reason=UnloadReason.IDLE),
        LoadModel(model_id=""),
        Shutdown(),
    ):
        ours.send(command)
    worker.work(theirs, cast("Any", pool))
    assert pool.models == [("m",), ("m", UnloadReason.IDLE), ("",)]
