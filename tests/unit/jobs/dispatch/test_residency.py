"""What an engine said of models, and what a load would cost by it."""

from dataclasses import replace

import pytest

from service.core.events import ModelLoaded, ModelsResident, ModelUnloaded, UnloadReason
from service.jobs.dispatch import residency
from service.jobs.dispatch.residency import Residency
from service.jobs.queue.estimate import LOAD_SECONDS
from tests.support.simulation.fake_engine import FAKE_MODEL
from tests.support.simulation.fake_models import catalog_with

SIZES = {"": 5, "a": 3, "b": 3}


class Clock:
    """Stands in for ``time``."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Return the time that the module lives in."""
    clock = Clock()
    monkeypatch.setattr(residency, "time", clock)
    return clock


@pytest.fixture
def held(clock: Clock) -> Residency:
    """Return what is known of an engine that has loaded its default model."""
    del clock
    held = Residency(catalog_with("a", "b"), max_attempts=2)
    held.begin(replace(FAKE_MODEL, load_seconds=2.0))
    says_resident(held)
    return held


def says_resident(held: Residency) -> None:
    names = {name: name for name in SIZES}
    held.resident(ModelsResident(device={key: SIZES[key] for key in held.loaded}), names)


def loads(held: Residency, key: str, *leaving: str, seconds: float = 4.0) -> None:
    held.ask(key)
    for other in leaving:
        held.left(ModelUnloaded(model_id=other, reason=UnloadReason.MEMORY), other)
    held.came(ModelLoaded(model_id=key, model=FAKE_MODEL, seconds=seconds), key)
    says_resident(held)


def test_a_load_takes_what_it_took_last(held: Residency) -> None:
    """Before that it is guessed; from host memory it is shorter, and so is the patience for it."""
    assert (held.load_seconds(""), held.load_seconds("a")) == (2.0, LOAD_SECONDS)
    loads(held, "a", seconds=30.0)
    loads(held, "a", seconds=0.5)
    assert held.load_seconds("a") == 0.5


def test_that_models_do_not_fit_together_is_learned(held: Residency) -> None:
    """From an eviction, and forgotten when as many bytes did fit."""
    loads(held, "a")
    assert not held.evicts("b")
    loads(held, "b", "a")
    assert held.evicts("a")
    loads(held, "a")
    assert held.loaded == {"", "a", "b"}
    held.left(ModelUnloaded(model_id="b", reason=UnloadReason.ASKED), "b")
    assert not held.evicts("b")


def test_a_model_with_work_keeps_its_memory_for_some_loads(held: Residency, clock: Clock) -> None:
    """Without any for less; where nothing has to leave there is nothing to wait for."""
    assert held.wait_seconds("b", busy=True, idle_since=0) == 0
    loads(held, "b", "")
    loads(held, "", "b")
    patience = residency.PATIENCE * 4.0
    assert held.wait_seconds("b", busy=True, idle_since=0) == patience
    assert held.wait_seconds("b", busy=False, idle_since=clock.now) == residency.LINGER * 4.0
    clock.now += patience
    assert held.wait_seconds("b", busy=True, idle_since=0) == 0


def test_nothing_starts_until_there_is_room(held: Residency) -> None:
    """From the demand until the engine reads."""
    held.ask("a")
    assert held.holding
    held.reading = True
    assert not held.holding


def test_a_model_that_cannot_be_loaded_may_be_tried_later(held: Residency, clock: Clock) -> None:
    """After a minute; after some seconds where the cause may pass."""
    held.failed("a", "No UNet.", transient=False)
    assert held.failure("a") == "No UNet."
    clock.now += residency.FAILURE_SECONDS
    assert held.failure("a") == ""
    held.failed("b", "Others hold the memory.", transient=True)
    assert held.failure("b") == ""
    assert held.wait_seconds("b", busy=False, idle_since=0) == residency.RETRY_SECONDS


def test_only_a_model_that_was_read_is_to_blame_for_the_end_of_an_engine(held: Residency) -> None:
    """As often as a job may lose an engine; a load that ends well clears it."""
    held.ask("a")
    assert held.lose() is None
    for expected in (None, "a"):
        held.begin(FAKE_MODEL)
        held.ask("a")
        held.reading = True
        assert held.lose() == expected
    assert (held.loaded, held.wanted) == (set(), None)
