"""The checks of the chaos drill: books that balance, and all ways in which they do not."""

import random
from dataclasses import replace
from typing import Any

import pytest
from PIL import Image

from tests.drills.chaos.__main__ import DRILL, Desk
from tests.drills.chaos.killer import Blow, plan
from tests.drills.chaos.patient import orders
from tests.drills.common.images import (
    MOST_DIFFERING,
    MOST_DIFFERING_FROM_IMAGE,
    difference,
    flaw,
)
from tests.drills.common.ledger import Account, End, Kill, Ledger, Notice, Order
from tests.support.load_client import Answer

DONE = End(state="succeeded", finished_at=5.0)
BODY = {"prompt": "a cabin", "width": 256, "height": 256, "steps": 2, "seed": 7}


def account(number: int, *ends: End, body: dict[str, Any] | None = None, **more: Any) -> Account:
    """Return an order that was accepted as ``id-N`` and ended."""
    order = Order(number=number, key=f"key-{number}", body={**BODY, "seed": number, **(body or {})})
    values: dict[str, Any] = {
        "ids": [f"id-{number}"],
        "asked": 1.0,
        "accepted": 1.0,
        "ended": 9.0,
        **more,
    }
    images = ["digest", "digest"] if ends and ends[0] == DONE else []
    return Account(order=order, ends=list(ends), **{"images": images, **values})


def notice(**more: Any) -> Notice:
    known: dict[str, Any] = {
        "delivery": "id-1-ended",
        "job": "id-1",
        "state": "succeeded",
        "genuine": True,
    }
    return Notice(**{**known, **more})


def ledger(*accounts: Account, **more: Any) -> Ledger:
    """Return books of these accounts, and of one that is as it should be."""
    told = account(1, DONE, DONE, body={"webhook": "http://127.0.0.1/1", "image": "iVBO"})
    known: dict[str, Any] = {
        "notices": [notice(refused=True), notice()],
        "max_attempts": 3,
        "inputs": {"id-1.image"},
    }
    found = Ledger(**{**known, **more})
    for each in (told, *accounts):
        found.accounts[each.order.number] = each
    if not found.listed:
        found.listed = {"id-1": 1}
    return found


def failed(books: Ledger) -> list[str]:
    return [name for name, problems in DRILL.found(books).items() if problems]


def test_books_that_balance_pass():
    """Finished, failed with a reason, cancelled as asked, and in the answer: nothing to say."""
    books = ledger(
        account(2, End(state="failed", reason="generation_failed")),
        account(3, End(state="cancelled", reason="cancelled"), cancel_asked=True),
        account(4, End(state="failed", reason="timeout"), body={"timeout_seconds": 1.0}),
        account(50, End(state="succeeded"), ids=[], images=["digest"]),
        account(6, End(state="failed", reason="engine_crashed"), attempts=3),
        kills=[Kill(at=2.0), Kill(at=3.0), Kill(at=4.0)],
        listed={"id-1": 1, "unnamed": 50},
        calm={1: ""},
    )
    assert failed(books) == []
    assert dict(books.counts()) == {"succeeded": 2, "failed": 3, "cancelled": 1}


@pytest.mark.parametrize(
    ("check", "broken"),
    [
        ("nothing is lost", account(2, ended=None)),
        ("nothing is lost", account(2, DONE, faults=["asked for, it is 404 not_found"])),
        ("ends have reasons", account(2, End(state="failed"))),
        ("ends have reasons", account(2, End(state="cancelled", reason="cancelled"))),
        ("ends have reasons", account(2, End(state="failed", reason="cancelled"))),
        ("ends have reasons", account(2, End(state="failed", reason="timeout"))),
        ("ends have reasons", account(2, End(state="vanished", reason="why not"))),
        (
            "no job is without its input image",
            account(2, End(state="failed", reason="input_lost"), body={"image": "iVBO"}),
        ),
        ("an end never changes", account(2, DONE, replace(DONE, finished_at=6.0))),
        ("one job for each Idempotency-Key", account(2, DONE, ids=["id-2", "id-3"])),
        (
            "one job for each Idempotency-Key",
            account(2, DONE, ids=["id-1"], body={"webhook": "http://x"}),
        ),
        ("webhooks come, and as one delivery", account(2, DONE, body={"webhook": "http://x"})),
        ("images are whole", account(2, DONE, images=[])),
        ("images are whole", account(2, DONE, images=["digest", "another"])),
        ("attempts stay in their bound", account(2, DONE, attempts=4)),
        (
            "attempts stay in their bound",
            account(2, End(state="failed", reason="engine_crashed"), attempts=3),
        ),
    ],
)
def test_an_account_that_does_not_balance_is_named(check, broken):
    """Each check fails alone, over the one account that breaks its rule."""
    assert failed(ledger(broken, kills=[Kill(at=2.0), Kill(at=3.0)])) == [check]


@pytest.mark.parametrize(
    ("check", "books"),
    [
        ("every job was ordered", ledger(listed={"id-1": 1, "other": 99})),
        ("every job was ordered", ledger(listed={"id-1": 1, "other": None})),
        (
            "every job was ordered",
            ledger(account(50, DONE, ids=[]), listed={"id-1": 1, "a": 50, "b": 50}),
        ),
        (
            "webhooks come, and as one delivery",
            ledger(account(50, DONE, ids=[]), notices=[notice(), notice(delivery="again")]),
        ),
        (
            "webhooks come, and as one delivery",
            ledger(account(50, DONE, ids=[]), notices=[notice(state="failed")]),
        ),
        (
            "webhooks come, and as one delivery",
            ledger(account(50, DONE, ids=[]), notices=[notice(genuine=False)]),
        ),
        (
            "webhooks come, and as one delivery",
            ledger(account(50, DONE, ids=[]), notices=[notice(), notice(job="id-9")]),
        ),
        (
            "images are those of an undisturbed service",
            ledger(account(50, DONE, ids=[]), calm={1: "3% of the values differ, by up to 9"}),
        ),
        (
            "no job is without its input image",
            ledger(account(1, DONE, body={"webhook": "http://x"})),
        ),
        ("input images go with their jobs", ledger(inputs=set())),
        ("input images go with their jobs", ledger(inputs={"id-1.image", "id-7.mask"})),
        ("input images go with their jobs", ledger(inputs={"id-1.image", "x.part"})),
        ("input images go with their jobs", ledger(left={"id-1.image"})),
    ],
)
def test_what_comes_beside_the_accounts_is_checked(check, books):
    """Strange jobs, second deliveries, wrong signatures and other images are found."""
    assert failed(books) == [check]


def test_the_same_seed_gives_the_same_orders_and_kills():
    """A drill can be done again."""
    first, second = (orders(5, "http://127.0.0.1/") for _ in range(2))
    assert [next(first) for _ in range(50)] == [next(second) for _ in range(50)]
    one, other = (plan(random.Random(5), 20, 10) for _ in range(2))  # noqa: S311
    assert one == other
    assert len(one) == 30
    assert set(one) == set(Blow)


def test_some_orders_begin_with_an_image_and_some_have_two_passes():
    """Masks come with images only; the size of the result is that of the second pass."""
    coming = orders(5, "")
    found = [next(coming) for _ in range(60)]
    bodies = [order.body for order in found]
    assert all("image" in body for body in bodies if "mask" in body)
    assert {"image", "mask", "hires"} <= {name for body in bodies for name in body}
    assert not any("hires" in body and "image" in body for body in bodies)
    larger = next(order for order in found if "hires" in order.body)
    assert larger.size == tuple(larger.body[side] * 5 // 4 for side in ("width", "height"))


def test_orders_go_on_until_the_last_kill_and_at_least_to_their_number():
    """A desk that closes hands out what is missing, a closed one nothing."""
    desk = Desk(orders(5, ""), 3)
    assert desk.take() is not None
    desk.closing = True
    assert desk.unsent == 2
    assert [desk.take() is None for _ in range(3)] == [False, False, True]
    desk = Desk(orders(5, ""), 3)
    desk.closed = True
    assert desk.take() is None


@pytest.mark.parametrize(
    ("status", "headers", "content", "seconds"),
    [
        (503, {"Retry-After": "2"}, b"{}", 2.0),
        (429, {"Retry-After": "600"}, b"{}", 10.0),
        (503, {}, b'{"code": "shutting_down"}', 0.3),
        (503, {}, b'{"code": "out_of_memory"}', None),
        (500, {"Retry-After": "2"}, b"{}", None),
    ],
)
def test_a_refusal_is_told_from_a_failure(status, headers, content, seconds):
    """What names a time, or comes from a service that stops, is asked again."""
    assert Answer(status=status, headers=headers, content=content).retry_after == seconds


def test_an_image_that_is_none_is_found_out():
    """Half a file, another format, another size."""
    assert flaw(b"\x89PNG", (256, 256)).startswith("its image cannot be read")


def test_images_are_the_same_up_to_rounding():
    """One step of 255 in few values is rounding; more of either is another image."""
    plain = Image.new("RGB", (256, 256), (10, 20, 30))
    rounded, other = plain.copy(), plain.copy()
    rounded.putpixel((3, 3), (11, 20, 30))
    other.putpixel((3, 3), (12, 20, 30))
    assert difference(plain, rounded) == ""
    assert difference(plain, other).endswith("by up to 2")
    assert difference(plain, Image.new("RGB", (256, 256), (11, 20, 30))).endswith("by up to 1")


def test_images_that_begin_with_images_may_differ_in_more_values():
    """Never by more than one step, and in twice as many values for neither of the two."""
    values = 3 * 256 * 256
    plain = Image.new("RGB", (256, 256), (10, 20, 30))
    for most in (MOST_DIFFERING, MOST_DIFFERING_FROM_IMAGE):
        for part, same in ((most, True), (2 * most, False)):
            other = plain.copy()
            for number in range(int(values * part)):
                other.putpixel((number % 256, number // 256), (11, 20, 30))
            assert (difference(plain, other, most) == "") is same
