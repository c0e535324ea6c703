"""What each key may still ask for."""

import random
from typing import Any

import pytest

from service.access.allowance import DAY_SECONDS, Allowance, Limits
from service.core.outcome import Outcome
from service.errors import QuotaExceeded, RateLimited

RATE = Limits(per_minute=30, burst=5)
QUOTA = Limits(images_per_day=10)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    """Return a clock that stands still."""
    return Clock()


@pytest.fixture
def allowance(clock) -> Allowance:
    """Return an allowance on that clock."""
    return Allowance(clock)


def taken(allowance: Allowance, name: str = "alice", limits: Limits = RATE) -> int:
    """Take until it is refused; return how often."""
    for count in range(1000):
        try:
            allowance.take(name, limits)
        except RateLimited:
            return count
    return 1000


def test_a_few_at_once_then_the_rate(allowance, clock):
    """The burst, and after it one request in two seconds."""
    assert taken(allowance) == 5
    clock.now += 4
    assert taken(allowance) == 2
    clock.now += 3600
    assert taken(allowance) == 5


def test_no_limit_is_none(allowance):
    """0 in the settings."""
    assert taken(allowance, limits=Limits()) == 1000
    assert allowance.requests_left("alice", Limits()) is None
    assert allowance.images_left("alice", Limits()) is None


def test_keys_do_not_share(allowance):
    """One that asks too often is not the other's problem."""
    taken(allowance, "alice")
    allowance.charge("alice", 10, QUOTA)
    assert taken(allowance, "bob") == 5
    assert allowance.charge("bob", 10, QUOTA).images == 10


@pytest.mark.parametrize("per_minute", [0.5, 1, 7, 30, 59, 1000])
def test_retry_after_is_long_enough_and_not_a_second_longer(allowance, clock, per_minute):
    """Who waits so long gets in; whoever comes a second earlier may not."""
    limits = Limits(per_minute=per_minute, burst=3)
    rng = random.Random(1)  # noqa: S311 - it only has to vary
    for _ in range(200):
        clock.now += rng.random() * 60 / per_minute
        taken(allowance, limits=limits)
        with pytest.raises(RateLimited) as caught:
            allowance.take("alice", limits)
        seconds = caught.value.retry_after or 0
        clock.now += seconds - 1
        assert seconds <= 1 or taken(allowance, limits=limits) == 0
        clock.now += 1
        allowance.take("alice", limits)


def test_images_of_the_last_day_count(allowance, clock):
    """Not of the calendar day; each minute's leave together."""
    allowance.charge("alice", 4, QUOTA)
    clock.now += 3600
    allowance.charge("alice", 6, QUOTA)
    clock.now += DAY_SECONDS - 3600 + 60
    assert allowance.charge("alice", 4, QUOTA).images == 4
    with pytest.raises(QuotaExceeded):
        allowance.charge("alice", 1, QUOTA)


def test_the_wait_for_images_proves_right(allowance, clock):
    """It ends when enough of the oldest images are a day old."""
    for _ in range(5):
        allowance.charge("alice", 2, QUOTA)
        clock.now += 600
    for images in (1, 5, 10):
        with pytest.raises(QuotaExceeded) as caught:
            allowance.charge("alice", images, QUOTA)
        seconds = caught.value.retry_after or 0
        assert 0 < seconds <= DAY_SECONDS + 60
        before, clock.now = clock.now, clock.now + seconds
        allowance.charge("alice", images, QUOTA).give_back()
        clock.now = before


def test_more_than_the_whole_quota_is_never_allowed(allowance):
    """There is no time after which it would be; the cure is in the words."""
    with pytest.raises(QuotaExceeded, match="request fewer at once") as caught:
        allowance.charge("alice", 11, QUOTA)
    assert caught.value.retry_after is None


@pytest.mark.parametrize(
    ("outcome", "started", "paid"),
    [
        ("succeeded", True, True),
        ("failed", True, False),
        ("failed", False, False),
        ("timed_out", False, False),
        ("timed_out", True, True),
        ("disconnected", False, False),
        ("disconnected", True, True),
        ("cancelled", False, False),
        ("cancelled", True, True),
        ("shut_down", False, False),
        ("shut_down", True, False),
    ],
)
def test_what_became_of_a_job_decides(allowance, outcome, started, *, paid):
    """A failure costs nothing; work that the client gave up is paid for."""
    allowance.charge("alice", 4, QUOTA).settle(Outcome(outcome), started=started)
    left = allowance.images_left("alice", QUOTA)
    assert left is not None
    assert left.remaining == (6 if paid else 10)


def test_images_are_given_back_once(allowance):
    """However often, and by whomever, a job is ended."""
    charge = allowance.charge("alice", 4, QUOTA)
    allowance.charge("alice", 2, QUOTA)
    charge.give_back()
    charge.give_back()
    charge.settle(Outcome.FAILED, started=True)
    assert allowance.images_left("alice", QUOTA).remaining == 8
    kept = allowance.charge("alice", 4, QUOTA)
    kept.settle(Outcome.SUCCEEDED, started=True)
    kept.give_back()
    assert allowance.images_left("alice", QUOTA).remaining == 4


def test_giving_back_after_a_day_gives_nothing_twice(allowance, clock):
    """What counts no more cannot be given back."""
    charge = allowance.charge("alice", 10, QUOTA)
    clock.now += DAY_SECONDS + 60
    allowance.charge("alice", 10, QUOTA)
    charge.give_back()
    assert allowance.images_left("alice", QUOTA).remaining == 0


def test_what_is_left_can_be_shown(allowance, clock):
    """Limit, rest, and the seconds until all of it is back."""

    def shown(left: Any) -> tuple[int, int, int]:
        return left.limit, left.remaining, left.reset_seconds

    assert shown(allowance.requests_left("alice", RATE)) == (5, 5, 0)
    assert shown(allowance.images_left("alice", QUOTA)) == (10, 10, 0)
    allowance.take("alice", RATE)
    allowance.charge("alice", 3, QUOTA)
    clock.now += 1
    assert shown(allowance.requests_left("alice", RATE)) == (5, 4, 1)
    assert shown(allowance.images_left("alice", QUOTA)) == (10, 7, 86_459)


def test_other_limits_hold_at_once(allowance):
    """A key whose limits change in its file keeps what it has, up to the new burst."""
    allowance.take("alice", RATE)
    assert taken(allowance, limits=Limits(per_minute=1, burst=2)) == 2
    assert taken(allowance, limits=RATE) == 0


def test_a_restart_can_count_on(allowance, clock):
    """What a store remembers is charged with its age, and leaves when it would have."""
    allowance.restore("alice", 6, DAY_SECONDS - 100)
    allowance.restore("alice", 4, 50)
    with pytest.raises(QuotaExceeded) as caught:
        allowance.charge("alice", 1, QUOTA)
    assert caught.value.retry_after == 160
    clock.now += 160
    assert allowance.images_left("alice", QUOTA).remaining == 6


def test_a_key_that_comes_back_has_used_what_it_had_used(allowance):
    """However often its line leaves the file: neither its quota nor its rate begins anew."""
    assert taken(allowance, limits=RATE) == RATE.burst
    charge = allowance.charge("alice", 6, QUOTA)
    allowance.charge("alice", 3, QUOTA)
    for names in (["bob"], [], ["alice", "bob"]):
        allowance.keep_only(names)
    assert taken(allowance, limits=RATE) == 0
    assert allowance.images_left("alice", QUOTA).remaining == 1
    charge.give_back()
    assert allowance.images_left("alice", QUOTA).remaining == 7


def test_state_is_bounded(allowance, clock):
    """A key that asks all day takes an entry a minute; keys that are gone take none."""
    for _ in range(4000):
        allowance.charge("alice", 1, Limits())
        clock.now += 30
    assert len(allowance._used["alice"]._slots) <= 1442
    allowance.take("alice", RATE)
    clock.now += DAY_SECONDS + 60
    allowance.keep_only(["bob"])
    assert (allowance._used, allowance._buckets) == ({}, {})
