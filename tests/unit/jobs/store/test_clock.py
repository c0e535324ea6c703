"""The time of day, without its jumps."""

import time

from service.jobs.store.clock import SteadyClock


def test_it_starts_with_the_time_of_day_and_then_counts_what_passes():
    """A clock that is set while the process lives changes nothing."""
    wall, steady = [1_000.0], [50.0]
    clock = SteadyClock(lambda: wall[0], lambda: steady[0])
    assert clock() == 1_000.0
    wall[0], steady[0] = 9e9, 53.0
    assert clock() == 1_003.0


def test_the_real_one_never_goes_back():
    """Its two sources are the machine's."""
    clock = SteadyClock()
    first, second = clock(), clock()
    assert first <= second
    assert abs(first - time.time()) < 60
