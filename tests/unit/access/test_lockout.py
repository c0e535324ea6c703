"""Who sent wrong keys, and how long it has to wait."""

import pytest

from service.access import lockout
from service.access.lockout import Lockout

A = ("a", "")
B = ("b", "")


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
    table = Lockout(3, clock)
    assert [table.failed(A) for _ in range(3)] == [False, False, True]
    assert table.wait(A, None) == 20
    clock.now += 20
    assert table.wait(A, None) == 0
    assert table.failed(A) is True
    assert table.wait(B, None) == 0


def test_several_guesses_at_once_count_as_several(clock):
    """Of the headers of one request."""
    table = Lockout(3, clock)
    assert [table.failed(A, guesses=2), table.failed(A)] == [False, True]


def test_two_secrets_are_guessed_apart(clock):
    """Who waits at one door may still try the other."""
    table = Lockout(1, clock)
    assert table.failed(("a", "/metrics")) is True
    assert (table.wait(("a", "/metrics"), None), table.wait(A, None)) == (60, 0)


def test_a_key_that_was_right_before_still_opens(clock):
    """One broken script behind a shared address locks nobody out; new guesses wait."""
    table = Lockout(1, clock)
    table.succeeded(A, "alice")
    assert table.failed(A) is True
    assert (table.wait(A, "alice"), table.wait(A, "bob"), table.wait(A, None)) == (0, 60, 60)
    assert table.wait(B, "alice") == 0


def test_none_are_counted_on_demand(clock):
    """0 in the settings."""
    table = Lockout(0, clock)
    assert [table.failed(A) for _ in range(99)] == [False] * 99
    assert table.wait(A, None) == 0


def test_the_table_is_bounded(clock, monkeypatch):
    """Whoever has many addresses fills no memory."""
    monkeypatch.setattr(lockout, "MOST_CLIENTS", 10)
    monkeypatch.setattr(lockout, "MOST_FRIENDS", 10)
    table = Lockout(1, clock)
    for number in range(1000):
        table.failed((f"a{number}", ""))
        table.succeeded((f"a{number}", ""), "alice")
    assert (len(table._buckets), len(table._friends)) == (10, 10)
    assert table.wait(("a999", ""), None) == 60
    assert table.wait(("a0", ""), None) == 0
