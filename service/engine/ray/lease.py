"""How long an engine works for a service that it does not hear of."""

import time
from collections.abc import Callable
from typing import Final

REST_SECONDS: Final = 7.0
"""Without a renewal no job is started after this."""

LOST_SECONDS: Final = 10.0
"""Without one for so long the engine ends: its jobs may be running elsewhere."""

ABANDONED_SECONDS: Final = 600.0
"""Nobody will come back for what it holds."""


class Lease:
    """Time since the last renewal, by a clock that no one sets."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._renewed = clock()

    def renew(self) -> None:
        """Begin anew."""
        self._renewed = self._clock()

    @property
    def age(self) -> float:
        """Seconds since the last renewal."""
        return self._clock() - self._renewed

    @property
    def resting(self) -> bool:
        """Whether it is so old that no job may be started."""
        return self.age >= REST_SECONDS

    @property
    def lost(self) -> bool:
        """Whether it is over, for good until somebody attaches."""
        return self.age >= LOST_SECONDS
