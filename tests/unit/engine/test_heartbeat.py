"""How long an engine may be silent."""

import pytest

from service.engine.heartbeat import FLOOR_SECONDS, Heartbeat

SMALL, LARGE = (256, 256), (768, 768)


@pytest.fixture
def heartbeat() -> Heartbeat:
    """Return one that allows ten minutes to what it does not know."""
    return Heartbeat(600)


def test_what_was_never_seen_may_take_the_most(heartbeat):
    """The first step of a size compiles kernels, or runs a large model on a slow processor."""
    heartbeat.observe(pixels=256**2, seconds=0.1)
    assert heartbeat.limit([LARGE]) == 600
    assert heartbeat.limit([SMALL, LARGE]) == 600


def test_ten_times_the_usual_step_is_too_long(heartbeat):
    """Of the slowest size in work, which may be the one that runs."""
    heartbeat.observe(pixels=256**2, seconds=3.0)
    heartbeat.observe(pixels=768**2, seconds=9.0)
    assert heartbeat.limit([SMALL]) == 30
    assert heartbeat.limit([SMALL, LARGE]) == 90


def test_the_usual_time_follows_a_slower_device(heartbeat):
    """A device that got slower for good is not restarted for ever."""
    for seconds in [2.0] + [4.0] * 30:
        heartbeat.observe(pixels=256**2, seconds=seconds)
    assert heartbeat.limit([SMALL]) == pytest.approx(40, rel=0.01)


def test_quick_steps_leave_time_for_what_is_no_step(heartbeat):
    """Decoding takes longer than ten steps of a fast card."""
    heartbeat.observe(pixels=256**2, seconds=0.005)
    assert heartbeat.limit([SMALL]) == FLOOR_SECONDS


def test_the_most_is_never_exceeded(heartbeat):
    """Not by ten steps of a very slow device either."""
    heartbeat.observe(pixels=256**2, seconds=100.0)
    assert heartbeat.limit([SMALL]) == 600
