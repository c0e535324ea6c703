"""The clock that runs while an engine should say something."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

import structlog

from service.core.stage import Stage
from service.engine.heartbeat import LATE_SHARE, Heartbeat
from service.engine.protocol import Generate
from service.telemetry.labels import FIRST_ENGINE

log = structlog.get_logger(__name__)

ASLEEP_SECONDS: Final = 1.0
"""A timer that comes so late tells that the service itself stood still, and heard nothing."""


class Watchdog:
    """Calls ``stalled`` when an engine has been silent for too long; on the event loop.

    ``work`` is what the engine works on, by the id of the job: the engine's own mapping.
    """

    def __init__(
        self, heartbeat: Heartbeat, work: Mapping[str, Generate], stalled: Callable[[float], None]
    ) -> None:
        self.engine = FIRST_ENGINE
        """Name of the engine, in the log."""
        self._heartbeat = heartbeat
        self._work = work
        self._stalled = stalled
        self._stage: Stage | None = None
        """What was begun last; None while nothing is expected."""
        self._heard = 0.0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def silence(self) -> float:
        """Seconds since the last sign of life; 0 while none is expected."""
        if self._stage is None:
            return 0.0
        return max(0.0, asyncio.get_running_loop().time() - self._heard)

    @property
    def late(self) -> bool:
        """Whether a good part of the time is over that an engine may be silent for."""
        limit = self._limit
        return limit is not None and self.silence > LATE_SHARE * limit

    def hear(self, stage: Stage) -> None:
        """Take a sign of life: the clock starts anew, for this stage."""
        self._stage = stage
        self._heard = asyncio.get_running_loop().time()
        self.update()

    def rest(self) -> None:
        """Expect nothing any more."""
        self._stage = None
        self.update()

    def update(self) -> None:
        """Work out the time anew; the clock goes on, for more work is no sign of life."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if (limit := self._limit) is not None:
            self._after(LATE_SHARE * limit, self._fall_silent)

    @property
    def _limit(self) -> float | None:
        if self._stage is None:
            return None
        return self._heartbeat.limit(self._stage, [each.request for each in self._work.values()])

    def _after(self, seconds: float, do: Callable[[float], None]) -> None:
        due = self._heard + seconds
        self._timer = asyncio.get_running_loop().call_at(due, do, due)

    def _fall_silent(self, due: float) -> None:
        limit = self._limit
        if limit is None or self._slept(due):
            return
        seconds = round(self.silence, 3)
        log.warning("engine_silent", engine=self.engine, seconds=seconds, stage=self._stage)
        self._after(limit, self._give_up)

    def _give_up(self, due: float) -> None:
        if self._stage is not None and not self._slept(due):
            self._stalled(self.silence)

    def _slept(self, due: float) -> bool:
        """Begin anew where the service was stopped itself: what it did not hear may be there."""
        if asyncio.get_running_loop().time() - due < ASLEEP_SECONDS:
            return False
        log.warning("watchdog_overslept", engine=self.engine, stage=self._stage)
        self._heard = asyncio.get_running_loop().time()
        self.update()
        return True
