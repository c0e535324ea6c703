"""Whether an engine that ends again and again is still trusted with new work."""

import time
from collections.abc import Callable
from enum import StrEnum
from typing import Final

import structlog

from service.telemetry.labels import FIRST_ENGINE

log = structlog.get_logger(__name__)

CRASHES_TO_OPEN: Final = 5
"""Ends of the engine in a row, without a finished job between them, that open the circuit."""

BEYOND_ONE_JOB: Final = 2
"""So many more than the attempts of one job: a job that kills every engine opens nothing."""


class CircuitState(StrEnum):
    """Whether work flows to the engine."""

    CLOSED = "closed"
    OPEN = "open"
    """The engine is away, and new work is refused."""
    HALF_OPEN = "half_open"
    """The engine is back, and one job at a time shows whether it holds."""


class Circuit:
    """Counts how often an engine ended since it last finished a job (Nygard, Release It!).

    Only a finished job closes an open circuit: an engine that loads proves nothing.
    Times are ``time.monotonic`` seconds.
    """

    def __init__(
        self,
        *,
        max_attempts: int,
        engine: str = FIRST_ENGINE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limit = max(CRASHES_TO_OPEN, max_attempts + BEYOND_ONE_JOB)
        """Ends in a row that open it."""
        self.crashes = 0
        self._log = log.bind(engine=engine)
        self._clock = clock
        self._restart_at = 0.0

    @property
    def open(self) -> bool:
        """Whether the engine is not trusted with more than one job at a time."""
        return self.crashes >= self.limit

    @property
    def wait_seconds(self) -> float:
        """Until the engine is started again; 0 when it was."""
        return max(0.0, self._restart_at - self._clock())

    def state(self, *, ready: bool) -> CircuitState:
        """Return whether work flows to an engine that is ``ready`` or not."""
        if not self.open:
            return CircuitState.CLOSED
        return CircuitState.HALF_OPEN if ready else CircuitState.OPEN

    def crashed(self, restart_seconds: float) -> None:
        """Count an end of the engine, which is started again after so many seconds."""
        self.crashes += 1
        self._restart_at = self._clock() + restart_seconds
        if self.open:
            self._log.error("circuit_opened", crashes=self.crashes, restart_seconds=restart_seconds)

    def succeeded(self) -> None:
        """Count a finished job: the engine works."""
        if self.open:
            self._log.warning("circuit_closed", crashes=self.crashes)
        self.crashes = 0
