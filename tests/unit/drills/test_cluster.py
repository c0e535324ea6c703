"""What the drill of a cluster makes of its scenes."""

from dataclasses import replace
from typing import Any

import pytest

from tests.drills.cluster.__main__ import DRILL
from tests.drills.common.ledger import Account, End, Ledger, Notice, Order
from tests.drills.engines.outcome import IMAGES, Course, Seen, Strike

LOG = [{"event": "job_requeued"}, {"event": "job_adopted"}, {"event": "job_adopted"}]
THAWED = Strike(slot="", at=10.0, thawed={"id-1": ("failed", 1)})
STRIKE = Strike(slot="", at=10.0, before=10.0, detected=11.0, ready=12.0, back=1.0)


def course(**more: Any) -> Course:
    """Return a scene with one order, which failed with a reason."""
    end = End(state="failed", reason="engine_crashed")
    order = Order(number=1, key="key-1", body={"seed": 1})
    ledger = Ledger(max_attempts=3, listed={"id-1": 1})
    ledger.accounts[1] = Account(order=order, ids=["id-1"], accepted=1.0, ends=[end])
    known: dict[str, Any] = {"name": "actor SIGKILL", "ends": True, "strikes": [STRIKE], "log": LOG}
    return Course(ledger=ledger, **{**known, **more})


def failed(seen: Course) -> list[str]:
    return [name for name, problems in DRILL.found(Seen(courses=[seen])).items() if problems]


def test_times_are_those_since_the_strike():
    """Also where the engine was back before it was as fast as before; one that never was counts."""
    never = Strike(slot="", at=20.0, before=10.0, detected=20.5, ready=21.0)
    said = " ".join(DRILL.described(Seen(courses=[course(strikes=[STRIKE, never])])).split())
    assert (
        "| actor SIGKILL | 2 | 1 | 0 | 1 | 0 | 0 | 0 | | 1 | 2 | 0.8, 1.0 | 3.0, 3.0 (1 not) |"
        in said
    )


@pytest.mark.parametrize(
    ("check", "found"),
    [
        ([], course()),
        (["each image is billed once"], course(billed=1)),
        (
            ["a thawed process changes no row"],
            course(strikes=[THAWED], rows={"id-1": ("failed", 2)}),
        ),
        (["a thawed process changes no row"], course(strikes=[THAWED])),
        ([], course(strikes=[THAWED], rows={"id-1": ("failed", 1), "id-2": ("succeeded", 1)})),
    ],
)
def test_what_must_not_happen_is_named(check: list[str], found: Course):
    """An order without an image is found in all of them, and nothing else but that."""
    assert failed(found) == ["every order has its image", *check]


def test_a_job_that_is_delivered_twice_is_named():
    """The same delivery may come again, another one may not."""
    found = course()
    account = found.ledger.accounts[1]
    account.order = account.order.but(webhook="http://127.0.0.1/1")
    once = Notice(delivery="first", job="id-1", state="failed", genuine=True)
    found.ledger.notices = [once, once]
    assert failed(found) == ["every order has its image"]
    found.ledger.notices.append(replace(once, delivery="second"))
    assert failed(found) == ["every order has its image", "each job is delivered once"]


def test_images_of_torch_are_compared_with_those_of_a_calm_service():
    """Any other difference than rounding is named."""
    found = course(exact=False)
    found.ledger.calm = {1: "1.000% of the values differ, by up to 90", 2: ""}
    assert failed(found) == ["every order has its image", IMAGES]


@pytest.mark.parametrize(
    ("log", "ends", "count"), [(LOG, True, 0), (LOG[1:], True, 1), (LOG[1:], False, 0)]
)
def test_a_strike_that_met_no_work_proves_nothing(log: list[Any], ends: bool, count: int):
    """Where jobs have to begin again, some did."""
    seen = Seen(courses=[course(log=log, ends=ends)])
    assert len(list(DRILL.goals["strikes meet work"](seen))) == count
