"""Who sent wrong keys, and how long it has to wait."""

import pytest

from service.http import failures
from service.http.failures import Failures


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    """Return a clock that stands still."""
    return Clock()


def test_a_client_may_fail_a_few_times_then_waits(clock):
    """Three in a minute: then one more in each twenty seconds."""
    table = Failures(3, clock)
    assert [table.failed("a") for _ in range(3)] == [False, False, True]
    assert table.wait("a", None) == 20
    clock.now += 20
    assert table.wait("a", None) == 0
    assert table.failed("a") is True
    assert table.wait("b", None) == 0


def test_a_key_that_was_right_before_still_opens(clock):
    """One broken script behind a shared address locks nobody out; new guesses wait."""
    table = Failures(1, clock)
    table.succeeded("a", "alice")
    assert table.failed("a") is True
    assert (table.wait("a", "alice"), table.wait("a", "bob"), table.wait("a", None)) == (0, 60, 60)
    assert table.wait("b", "alice") == 0


def test_none_are_counted_on_demand(clock):
    """0 in the settings."""
    table = Failures(0, clock)
    assert [table.failed("a") for _ in range(99)] == [False] * 99
    assert table.wait("a", None) == 0


def test_the_table_is_bounded(clock, monkeypatch):
    """Whoever has many addresses fills no memory."""
    monkeypatch.setattr(failures, "MOST_CLIENTS", 10)
    monkeypatch.setattr(failures, "MOST_FRIENDS", 10)
    table = Failures(1, clock)
    for number in range(1000):
        table.failed(f"a{number}")
        table.succeeded(f"a{number}", "alice")
    assert (len(table._buckets), len(table._friends)) == (10, 10)
    assert table.wait("a999", None) == 60
    assert table.wait("a0", None) == 0
