"""What the drill of model switches makes of its scenes."""

from dataclasses import replace
from typing import Any

import pytest

from tests.drills.chaos.killer import Blow
from tests.drills.common.ledger import Account, End, Ledger, Order
from tests.drills.switches.__main__ import DRILL
from tests.drills.switches.course import times
from tests.drills.switches.outcome import MAX_ATTEMPTS, Course
from tests.drills.switches.scenes import DEMO, SCENES, TINY, alternating

DONE = End(state="succeeded", finished_at=5.0)


def account(number: int, *ends: End, model: str = DEMO) -> Account:
    """Return an order that was accepted as ``id-N`` and ended."""
    order = Order(number=number, key=f"key-{number}", body={"seed": number, "model": model})
    found = ["digest"] if DONE in ends else []
    return Account(order=order, ids=[f"id-{number}"], accepted=1.0, ends=list(ends), images=found)


def course(*accounts: Account, drawn_by: str = "", **more: Any) -> Course:
    """Return a scene with these accounts, and one that is as it should be."""
    known: dict[str, Any] = {
        "scene": SCENES[0],
        "loads": [2.0, 1.0],
        "waits": [10.0],
        "runs": [3.0],
        **more,
    }
    found = Course(ledger=Ledger(max_attempts=MAX_ATTEMPTS), **known)
    for each in (account(1, DONE), *accounts):
        found.ledger.accounts[each.order.number] = each
        drawn = drawn_by or each.order.body["model"]
        found.jobs = {**found.jobs, each.ids[0]: {"metadata": {"model": drawn}}}
    found.ledger.listed = {f"id-{number}": number for number in found.ledger.accounts}
    return found


def failed(seen: Course) -> list[str]:
    return [name for name, problems in DRILL.found([seen]).items() if problems]


def test_a_scene_without_a_fault_has_none():
    """All orders have images of their models, and the longest wait is within its bound."""
    seen = course(account(2, DONE, model=TINY))
    assert failed(seen) == []
    cells = " ".join(DRILL.described([seen]).split())
    assert "| 2 | 0 | 0 | 2 | 1.5, 2.0 | 10.0, 10.0 | 15.0 | 0 | 0 |" in cells


@pytest.mark.parametrize(
    ("check", "seen"),
    [
        ("nothing is lost", course(account(2))),
        ("nothing is lost", course(account(2, End(state="failed", reason="engine_crashed")))),
        ("each image is of the model that was asked for", course(drawn_by=TINY)),
        ("no job waits longer than its bound", course(waits=[15.1])),
        ("only one model fits", course(loads=[10.0])),
        ("kills fall into loads", course(scene=replace(SCENES[0], blows=(Blow.ENGINE_KILL,)))),
    ],
)
def test_what_must_not_happen_is_named(check: str, seen: Course):
    """Each fault is the only one that is found."""
    assert failed(seen) == [check]


def test_waits_where_somebody_was_killed_have_no_bound():
    """An engine that starts again is no part of it."""
    scene = replace(SCENES[0], blows=(Blow.ENGINE_KILL,))
    assert failed(course(scene=scene, waits=[500.0], interrupted=1)) == []


def test_half_of_the_clients_begin_with_each_model():
    """Then each asks for the other one."""
    model = alternating("a", "b")
    assert [[model(client, request) for request in range(3)] for client in range(2)] == [
        ["a", "b", "a"],
        ["b", "a", "b"],
    ]


def test_times_are_those_of_the_log():
    """From acceptance to the first start, and from there to the end; an open job has none."""

    def line(event: str, second: int, job: str = "a") -> dict[str, Any]:
        return {"event": event, "job_id": job, "timestamp": f"2026-01-01T00:00:{second:02}Z"}

    log = [
        *(line("job_queued", 1), line("job_started", 4), line("job_started", 9)),
        *(line("job_ended", 11), line("job_queued", 2, "b")),
    ]
    assert times(log) == ([3.0], [7.0])
