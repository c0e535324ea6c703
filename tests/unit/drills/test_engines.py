"""What the drill of several engines makes of a log and of a ledger."""

import io
from dataclasses import replace
from typing import Any

import pytest
from PIL import Image

from service.core.spec import GenerationSpec
from tests.drills.common.ledger import Account, End, Ledger, Order
from tests.drills.engines.__main__ import DRILL, counts
from tests.drills.engines.outcome import Course, Rate, Seen, Strike, back_after, rate
from tests.support.fake_worker import drawn

DONE = End(state="succeeded")
BODY = {"prompt": "a cabin", "width": 64, "height": 64, "steps": 2}
STRIKE = Strike(slot="1", at=10.0, before=10.0, detected=11.0, ready=12.0, back=0.0)


def png(**body: Any) -> bytes:
    """Return the image that a request asks for."""
    file = io.BytesIO()
    pixels = bytes(drawn(GenerationSpec(**body))[0].pixels)
    Image.frombytes("RGB", (64, 64), pixels).save(file, "PNG")
    return file.getvalue()


def account(number: int, *ends: End, **more: Any) -> Account:
    """Return an order that was accepted as ``id-N`` and ended."""
    body = {**BODY, "seed": number}
    known: dict[str, Any] = {"ids": [f"id-{number}"], "accepted": 1.0, "ended": 2.0}
    if DONE in ends:
        known |= {"images": ["digest"], "png": png(**body)}
    order = Order(number=number, key=f"key-{number}", body=body)
    return Account(order=order, ends=list(ends), **{**known, **more})


def line(event: str, second: float, engine: str = "1", **more: Any) -> dict[str, Any]:
    """Return a line of the log of a minute that begins at 0."""
    at = f"1970-01-01T00:00:{second:09.6f}+00:00"
    return {"event": event, "timestamp": at, "engine": engine, **more}


LOG = [line("engine_exited", 11), line("job_requeued", 11), line("model_loaded", 12)]


def course(*accounts: Account, **more: Any) -> Course:
    """Return a scene with these accounts, and one that is as it should be."""
    ledger = Ledger(max_attempts=3)
    for each in (account(1, DONE), *accounts):
        ledger.accounts[each.order.number] = each
    ledger.listed = {f"id-{number}": number for number in ledger.accounts}
    made = sum(bool(each.images) for each in ledger.taken)
    known: dict[str, Any] = {"name": "killed", "ends": True, "strikes": [STRIKE], "log": LOG}
    known["billed"] = made
    return Course(ledger=ledger, **{**known, **more})


def seen(*courses: Course, **rates: float) -> Seen:
    """Return an outcome in which four engines do 3.9 times as much as one, if not told else."""
    images = {"one": 5.0, "four": 19.5, **rates}
    found = {
        count: Rate(images=images[name], cpu=0.01, ledger=Ledger(max_attempts=3))
        for name, count in (("one", 1), ("four", 4))
    }
    return Seen(rates=found, courses=list(courses))


def failed(found: Seen) -> list[str]:
    return [name for name, problems in DRILL.found(found).items() if problems]


def missed(found: Seen) -> list[str]:
    return [name.split(" (")[0] for name, check in DRILL.goals.items() if list(check(found))]


def test_a_scene_without_a_fault_has_none():
    """All orders have their images, and the table says when the engine was back."""
    found = seen(course(account(2, DONE)))
    assert (failed(found), missed(found)) == ([], [])
    said = " ".join(DRILL.described(found).split())
    assert "| 4 | 19.50 | 3.90 | 10.0 |" in said
    assert "| killed | 1 | 2 | 0 | 0 | 1 | 1.0, 1.0 | 2.0, 2.0 | 0.0, 0.0 |" in said


ON_TRIAL = [
    *LOG,
    line("circuit_opened", 11),
    *(line("job_started", 13), line("job_started", 13.5), line("circuit_closed", 14)),
]


@pytest.mark.parametrize(
    ("check", "found"),
    [
        (["nothing is lost", "every order has its image"], course(account(2))),
        (
            ["every order has its image"],
            course(account(2, End(state="failed", reason="generation_failed"))),
        ),
        (
            ["images are exactly those that were asked for"],
            course(account(2, DONE, png=png(**BODY))),
        ),
        (["engines that end are noticed, and no others"], course(log=LOG[1:])),
        (["engines that end are noticed, and no others"], course(ends=False)),
        (["each image is billed once"], course(billed=2)),
        (
            ["an engine that was taken out is trusted with one job first"],
            course(strikes=[replace(STRIKE, opened=11.0)], log=ON_TRIAL),
        ),
    ],
)
def test_what_must_not_happen_is_named(check: list[str], found: Course):
    """Each fault is found, and nothing else."""
    assert failed(seen(found)) == check


def test_an_engine_on_trial_may_have_one_job():
    """The second one comes when the first has ended well."""
    log = [each for each in ON_TRIAL if each != line("job_started", 13.5)]
    found = seen(course(strikes=[replace(STRIKE, opened=11.0)], log=log))
    assert failed(found) == []
    said = " ".join(DRILL.described(found).split())
    assert "| 1 | 1.0 | 1.0 | 0% |" in said


@pytest.mark.parametrize(
    ("goal", "found"),
    [
        ("engines add up", seen(four=19.4)),
        ("strikes meet work", seen(course(log=[LOG[0], LOG[2]]))),
        (
            "the throughput is back within 10 s of the restart",
            seen(course(strikes=[replace(STRIKE, back=10.1)])),
        ),
        (
            "the throughput is back within 10 s of the restart",
            seen(course(strikes=[replace(STRIKE, back=None)])),
        ),
    ],
)
def test_what_is_slow_misses_a_goal(goal: str, found: Seen):
    """It is no failure: the machine may have had other work."""
    assert missed(found) == [goal]


def test_the_rate_is_that_of_all_images():
    """Some images at one moment, or one that is late, change little of it."""
    assert rate([0.0, 1.0, 2.0, 3.0]) == pytest.approx(1.0)
    assert rate([0.0, 0.0, 2.0, 2.0, 4.0, 4.0, 6.0, 6.0]) == pytest.approx(1.0, abs=0.06)
    assert rate([5.0]) == 0.0


def test_the_throughput_is_back_where_a_window_is_full():
    """It begins with the restart or an image after it, and must be over."""
    strike = replace(STRIKE, before=2.0)
    slow = [12.5, 13.5, 14.5]
    full = [15.0, 15.5, 16.0, 16.5, 17.0]
    assert back_after([*slow, *full, 19.0], strike) == 2.5
    assert back_after([*slow, 15.0, 15.5], strike) is None
    assert back_after([12.0, 12.5, 13.0, 13.5, 14.0], strike) == 0.0


def test_engines_are_doubled_until_there_are_enough():
    """The last number is the one that was asked for."""
    assert [counts(most) for most in (1, 2, 4, 6)] == [[1], [1, 2], [1, 2, 4], [1, 2, 4, 6]]
