"""How long an engine works for a service that it does not hear of."""

import ctypes
import os
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Final

from service.engine.channel import COMMANDS, Channel
from service.engine.process.child import SPAWN
from service.engine.protocol import Command, EngineEvent

REST_SECONDS: Final = 7.0
"""Without a renewal no job, and no step of one, is started after this."""

LOST_SECONDS: Final = 10.0
"""Without one for so long the engine ends: its jobs may be running elsewhere."""

ABANDONED_SECONDS: Final = 600.0
"""Nobody will come back for what it holds."""

LOOK_SECONDS: Final = 0.25
"""Between two looks at the lease."""

LEFT: Final = 1
"""Exit code of an engine whose host hangs."""


class Lease:
    """Time since the last renewal, by a clock that no one sets.

    It counts from the sign of life that the service has heard, not from the word that it did: that
    may have been on its way for long. A child to which it is given sees every renewal, also in the
    middle of a step: the time is in memory that both have.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._renewed = SPAWN.RawValue(ctypes.c_double, clock())
        self._pulse, self._sent = 0, 0.0
        """The latest sign of life, and when it was sent."""

    def restart(self) -> None:
        """Begin anew, with nothing in work."""
        self._renewed.value = self._clock()

    def pulse(self) -> int:
        """Return the number of a sign of life that is sent now."""
        self._pulse, self._sent = self._pulse + 1, self._clock()
        return self._pulse

    def renew(self, heard: int) -> None:
        """Begin anew from a sign of life that was heard, if it is the latest."""
        if heard == self._pulse:
            self._renewed.value = self._sent

    @property
    def age(self) -> float:
        """Seconds since the last renewal."""
        return self._clock() - self._renewed.value

    @property
    def resting(self) -> bool:
        """Whether it is so old that no job may be started."""
        return self.age >= REST_SECONDS

    @property
    def lost(self) -> bool:
        """Whether it is over, for good until somebody attaches."""
        return self.age >= LOST_SECONDS


class LeasedChannel(Channel[EngineEvent, Command]):
    """The pipe of an engine whose host may hang.

    An engine asks for commands between two steps; without a renewal it gets no answer, and so
    begins no step.
    """

    def __init__(self, pipe: "Connection[bytes, bytes]", lease: Lease) -> None:
        super().__init__(pipe, COMMANDS)
        self._lease = lease

    def poll(self, seconds: float | None = 0) -> bool:
        """Wait for the lease; then for a message, as any channel does."""
        while self._lease.resting:
            time.sleep(LOOK_SECONDS)
        return super().poll(seconds)


def end_with(lease: Lease) -> None:
    """End this process, in whichever step, when the lease is over and its host has not ended it."""
    threading.Thread(target=_end_with, args=(lease,), name="lease", daemon=True).start()


def _end_with(lease: Lease) -> None:
    # A host that works has looked by then.
    while (left := LOST_SECONDS + LOOK_SECONDS - lease.age) > 0:
        time.sleep(min(left, LOOK_SECONDS))
    os._exit(LEFT)
