"""What has happened to a job so far, for those who watch it."""

import asyncio
import secrets
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from service.jobs.job import JobState

BOOT: Final = secrets.token_hex(4)
"""Tells the ids of this process from those of the one before, which counted anew."""

PREVIEW: Final = "preview"
LONGEST_NUMBER: Final = 18
"""Digits of a number of an event, at most."""

LAST: Final = {
    JobState.SUCCEEDED: "finished",
    JobState.FAILED: "failed",
    JobState.CANCELLED: "cancelled",
}
"""The kind of the event that ends a job's events, by its state."""


@dataclass(frozen=True, kw_only=True)
class JobEvent:
    """One thing that happened; ``number`` grows from event to event of a job."""

    number: int
    kind: str
    """``queued``, ``started``, ``step``, ``preview``, ``finished``, ``failed`` or ``cancelled``."""
    data: Mapping[str, Any]

    @property
    def id(self) -> str:
        """What a watcher who lost the line says that it saw last; empty where nothing follows."""
        return f"{BOOT}-{self.number}" if self.number else ""

    @property
    def last(self) -> bool:
        """Whether nothing follows."""
        return self.kind in LAST.values()


class EventLog:
    """The newest event of each kind, the oldest first: what a watcher who comes late must know.

    Fifty steps are one event, that of the latest; a job costs a handful of events however
    long it takes. Everything runs on the event loop.
    """

    def __init__(self) -> None:
        self._events: dict[str, JobEvent] = {}
        self._number = 0
        self._news = asyncio.Event()
        self.watchers = 0
        """How many follow it now."""
        self.viewers = 0
        """How many of them want previews; while nobody does none is kept."""

    def say(self, kind: str, data: Mapping[str, Any]) -> None:
        """Tell all who watch; what a job was before it waited again is no longer told."""
        if kind == "queued":
            self._events.clear()
        elif kind in LAST.values():
            self._events.pop(PREVIEW, None)
        self._number += 1
        self._events.pop(kind, None)
        self._events[kind] = JobEvent(number=self._number, kind=kind, data=data)
        if self.watchers:
            self._news.set()
            self._news = asyncio.Event()

    @property
    def newest(self) -> JobEvent | None:
        """The latest event, None before the first; previews are for those who asked for them."""
        found = (event for event in reversed(self._events.values()) if event.kind != PREVIEW)
        return next(found, None)

    async def after(
        self, seen: str = "", *, previews: bool = False
    ) -> AsyncGenerator[JobEvent, None]:
        """Yield what came after the event with the id ``seen``, and what comes, to the end.

        An id that is unknown, that of an earlier process say, is taken for none.
        """
        number = self._number_of(seen)
        self.watchers += 1
        self.viewers += previews
        try:
            while True:
                news = self._news
                for event in [e for e in self._events.values() if e.number > number]:
                    number = event.number
                    if previews or event.kind != PREVIEW:
                        yield event
                    if event.last:
                        return
                # What was said while an event was being sent comes next, the last word above all.
                if self.newest and self.newest.last and self.newest.number <= number:
                    return
                await news.wait()
        finally:
            self.watchers -= 1
            self.viewers -= previews
            if not self.viewers:
                self._events.pop(PREVIEW, None)

    def _number_of(self, seen: str) -> int:
        boot, _, number = seen.partition("-")
        # int() raises at 4,301 digits, and reads those of every script.
        sane = number.isascii() and number.isdigit() and len(number) <= LONGEST_NUMBER
        return int(number) if boot == BOOT and sane and int(number) <= self._number else 0
