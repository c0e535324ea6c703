"""Positions of waiting jobs, told at a bounded rate."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

from service.jobs.durable.live_job import LiveJob
from service.jobs.job import Job, JobState
from service.jobs.queue.forecast import Position

TELL_SECONDS: Final = 1.0
"""Between two positions that the watchers of one job are told, at least."""

COMPUTE_SECONDS: Final = 0.5
"""Between two rounds over all waiting jobs, at least."""


class PositionEvents:
    """Tells the watchers of waiting jobs where they stand.

    Each start moves every waiting job. The positions in between are dropped: a client cannot use
    them, and with many watchers they would cost more than the jobs. The last one is always told.
    """

    def __init__(
        self, live: Mapping[str, LiveJob], position: Callable[[Job], Position | None]
    ) -> None:
        """Set up; ``live`` are the jobs that are not over, by id."""
        self._live, self._position = live, position
        self._timer: asyncio.TimerHandle | None = None
        self._next = 0.0
        """When the next round may begin, on the clock of the event loop."""
        self._order = 0
        """Counts the changes of the order."""

    def moved(self) -> None:
        """Note that the order of the waiting jobs changed."""
        self._order += 1
        self._plan()

    def tell(self, live: LiveJob) -> None:
        """Tell the position of a waiting job now, unless that was told last."""
        if live.job.state is not JobState.QUEUED or (place := self._position(live.job)) is None:
            return
        live.position_due = asyncio.get_running_loop().time() + TELL_SECONDS
        live.position_order = self._order
        data = {"position": place.number, "start_seconds": round(place.start_seconds, 3)}
        newest = live.events.newest
        if newest is None or newest.kind != "queued" or newest.data != data:
            live.events.say("queued", data)

    def refresh(self, live: LiveJob) -> None:
        """Tell the position of a job that somebody looks at; later, if it was told just now."""
        if asyncio.get_running_loop().time() >= live.position_due:
            self.tell(live)
        elif live.position_order != self._order:
            self._plan()

    def _plan(self) -> None:
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_at(max(loop.time(), self._next), self._round)

    def _round(self) -> None:
        self._timer = None
        self._next = asyncio.get_running_loop().time() + COMPUTE_SECONDS
        for live in self._live.values():
            waits = live.job.state is JobState.QUEUED
            if waits and live.events.watchers and live.position_order != self._order:
                self.refresh(live)
