"""What an overload drill makes of its visits."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.drills import cancel
from tests.drills.cancel import Left, Way
from tests.drills.common.drill import Given
from tests.drills.common.ledger import Visit
from tests.drills.overload.__main__ import DRILL
from tests.drills.overload.outcome import (
    Outcome,
    Probe,
    described,
    missed,
    problems,
    promises,
    times,
)


def visit(**more: Any) -> Visit:
    """Return a client that was let in at once and got its image in 3 s."""
    known = {"key": "flood", "body": {}, "deadline": 10.0, "admitted": 5.0, "answered": 8.0}
    return Visit(**{**known, "status": 200, **more})


def back(told: float, admitted: float | None) -> Visit:
    """Return a client that was refused at 10 s and told a time."""
    end = {"admitted": admitted, "answered": admitted and admitted + 1}
    return visit(refused=[10.0], told=[told], left=admitted is None, **end)


def probe(milliseconds: float) -> Probe:
    return Probe(at=0.0, milliseconds=milliseconds, waiting=0, running=0)


def outcome(*visits: Visit, **more: Any) -> Outcome:
    return Outcome(visits=[*visits, back(4.0, 14.0)], end=60.0, loaded=[probe(2.0)], **more)


def test_an_overload_without_a_fault_has_none():
    """Images, deadlines that were kept as 408, and promises that came true."""
    books = outcome(visit(), visit(status=408, answered=15.2))
    assert list(problems(books)) == []
    assert list(missed(books)) == []
    assert "| all | 3 | 1 | 3 | 2 | 1 | 0 | 0.20 |" in " ".join(described(books).split())


@pytest.mark.parametrize(
    ("problem", "books"),
    [
        ("no overload", Outcome(visits=[visit()])),
        ("503 queue_full without a time", outcome(visit(flaw="503 queue_full without a time"))),
        ("never got an answer", outcome(visit(admitted=None))),
        ("200 came after 11.5 s of 10", outcome(visit(answered=16.5))),
        ("waiting and running after", outcome(left_over=(1, 0))),
    ],
)
def test_what_must_not_happen_is_named(problem, books):
    """Each fault is the only one that is found."""
    found = list(problems(books))
    assert len(found) == 1
    assert problem in found[0]


def test_a_promise_is_right_within_a_factor_of_two():
    """Too late and never are wrong; what came due after the end is not judged."""
    visits = [back(4.0, 14.0), back(4.0, 18.0), back(4.0, 18.1), back(4.0, None)]
    assert promises([*visits, back(400.0, None), visit()], 60.0) == (4, 2)


def test_a_slow_answer_counts_for_the_questions_that_it_delayed():
    """At 20 questions a second an answer of 120 ms hides two that would have waited, too."""
    assert times([probe(2.0), probe(120.0)]) == pytest.approx([2.0, 20.0, 70.0, 120.0])


def test_goals_that_are_missed_are_named():
    """A slow /health and wrong promises."""
    books = outcome(back(4.0, 30.0))
    books.loaded = [probe(80.0)]
    assert len(list(missed(books))) == 2


@pytest.mark.parametrize(("arguments", "code"), [([], 0), (["--goals"], 1)])
def test_a_missed_goal_is_a_failure_where_that_is_asked_for(arguments, code, capsys):
    """Else it is only named: it may be the machine's fault."""

    async def run(_given: Given, _folder: Path) -> Outcome:
        books = outcome()
        books.loaded = [probe(80.0)]
        return books

    assert replace(DRILL, run=run).main(arguments) == code
    assert "MISSED: promises and /health: /health took 80 ms" in capsys.readouterr().out


def left(after: int) -> Left:
    return Left(way=Way.DELETED, given_up=1.0, noticed=1.002, free=1.05, known=7, done=7 + after)


@pytest.mark.parametrize(("after", "code"), [(0, 0), (1, 0), (2, 0), (3, 1)])
def test_steps_for_nobody_are_a_failure(after, code, capsys):
    """Two steps that were begun after the end was known are too many."""

    async def run(_given: Given, _folder: Path) -> cancel.Outcome:
        return cancel.Outcome(step=0.05, left=[left(after)])

    assert replace(cancel.DRILL, run=run).main([]) == code
    assert f"| 1 | {after}: 1 times | 2, 2 | 48, 48 |" in " ".join(capsys.readouterr().out.split())
