"""Work on a thread: its end, its errors, its time."""

import threading
from typing import TypeVar

import pytest

from service.core.stage import Stage
from service.diffusion.loop.step_loop import Fault
from service.diffusion.pool.background import Background, Waiting
from service.errors import ModelError

T = TypeVar("T")


def waited(background: Background, waiting: Waiting[T]) -> T:
    while True:
        try:
            next(waiting)
        except StopIteration as end:
            found: T = end.value
            return found
        background.rest()


def test_its_result_comes_back_from_a_thread_of_its_own() -> None:
    """And an error does."""
    background = Background(most_seconds=30.0)
    assert waited(background, background.run(lambda _begin: threading.current_thread().name)) == (
        "models"
    )
    with pytest.raises(ZeroDivisionError):
        waited(background, background.run(lambda _begin: 1 / 0))
    assert not background.active


def test_its_result_comes_though_somebody_saw_its_end_before() -> None:
    """Whoever asks whether a thread works takes nothing away from who waits for it."""
    background, proceed = Background(most_seconds=30.0), threading.Event()
    waiting = background.run(lambda _begin: proceed.wait(30.0))
    next(waiting)
    proceed.set()
    while background.active:
        background.rest()
    assert waited(background, waiting)


def test_work_that_takes_too_long_is_given_up() -> None:
    """Its thread stays: until it ends nothing that is measured means anything."""
    background, proceed = Background(most_seconds=0.0), threading.Event()
    with pytest.raises(ModelError, match="not loaded within 0 s") as caught:
        waited(background, background.run(lambda _begin: proceed.wait(30.0)))
    assert caught.value.transient
    assert background.active
    proceed.set()
    while background.active:
        background.rest()


def test_a_model_may_be_fetched_for_any_time() -> None:
    """The clock starts anew when it is here."""
    background, fetched = Background(most_seconds=0.0), threading.Event()

    def work(begin: Fault) -> str:
        begin(Stage.FETCH, 0)
        assert fetched.wait(30.0)
        return "here"

    waiting = background.run(work)
    for _ in range(3):
        next(waiting)
        background.rest()
    fetched.set()
    assert waited(background, waiting) == "here"


def test_faults_are_committed_before_a_model_is_read() -> None:
    """Those of the stage load, and no others."""
    told: list[Stage] = []
    background = Background(most_seconds=30.0, fault=lambda stage, _images: told.append(stage))

    def work(begin: Fault) -> None:
        for stage in (Stage.FETCH, Stage.LOAD):
            begin(stage, 0)

    waited(background, background.run(work))
    assert told == [Stage.LOAD]
