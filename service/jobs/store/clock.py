"""The time of day, without its jumps."""

import time
from collections.abc import Callable


def _since_boot() -> float:
    # CLOCK_MONOTONIC stands still while a machine sleeps, which would make everything younger.
    boottime: int | None = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boottime is None else time.clock_gettime(boottime)


class SteadyClock:
    """Seconds since 1970 as they were at the start of the process, plus what has passed since.

    Ages are told by it: where somebody sets the clock of a running machine a year ahead,
    nothing that the service keeps is a year old.
    """

    def __init__(
        self, wall: Callable[[], float] = time.time, steady: Callable[[], float] = _since_boot
    ) -> None:
        self._steady = steady
        self._offset = wall() - steady()

    def __call__(self) -> float:
        """Return the seconds since 1970."""
        return self._offset + self._steady()
