"""Places in the queue that were promised to clients who found it full."""

import math
from bisect import insort
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from service.jobs.job import Job
from service.jobs.queue.queue import JobQueue, Limit

EARLY_SECONDS = 1.0
"""A client may come back so long before its time; clocks differ."""

GRACE_SECONDS = 2.0
"""A place is kept for a client that is late by so long, and a tenth of what it was told."""

MOST_PROMISES = 16
"""Promises kept for each place of the queue."""

LEFT_FREE = 1
"""Places that a promise beyond its key's share leaves to keys that have none waiting."""


@dataclass(frozen=True, kw_only=True, order=True)
class Promise:
    """A place that one refused client was told to come back for."""

    at: float
    ticket: int
    """Who was refused first has the lowest."""
    until: float
    """When it is given up."""
    owner: str
    mark: int
    """What the client is known again by: its key and its request, whatever the seed."""


class Reservations:
    """The line of those who were refused, each with the time it was told to come back.

    ``Retry-After`` comes true only if nobody takes the place in between, so a newcomer is
    refused where it would take a place that is promised. A promise is kept by number of
    places, not of the place: whoever sends the same request with the same key redeems the
    oldest one that is due. Times are ``time.monotonic`` seconds.
    """

    def __init__(self, queue: JobQueue, waiting: Callable[[], Sequence[Job]] | None = None) -> None:
        """Set up; ``waiting`` returns the jobs whose starts are given, else all of the queue."""
        self._queue = queue
        self._waiting = waiting or (lambda: queue.waiting)
        self._promises: list[Promise] = []
        self._kept_until = math.inf
        """When the first promise is given up, or before."""
        self._tickets = 0

    def limit(self, job: Job, starts: Callable[[], Sequence[float]], now: float) -> Limit | None:
        """Return what refuses ``job``, or None when there is a place for it.

        ``starts`` gives the seconds until each job that waits starts and so leaves
        its place. An empty queue refuses nobody, or the GPU might stand idle for a promise.
        """
        limit = self._queue.limit(job.owner)
        self._forget(now)
        due = self._due(job, now) is not None
        if due and limit is Limit.KEY and self._queue.free > LEFT_FREE:
            return None  # Other keys have come since; what was promised to this one is kept.
        if limit is not None or due or not self._promises or self._queue.empty():
            return limit
        return None if self._all_kept(job.owner, starts(), now) else Limit.PROMISED

    def _all_kept(self, owner: str, starts: Sequence[float], now: float) -> bool:
        """Return whether the key's own promises come true if one more job of it is let in."""
        free, held, started = self._queue.free - 1, self._queue.held(owner) + 1, 0
        waiting = self._waiting()
        for promise in self._promises:
            if promise.owner != owner:
                continue
            while started < len(starts) and now + starts[started] <= promise.at:
                free += 1
                held -= waiting[started].owner == owner
                started += 1
            if started == len(starts):
                return True  # What comes after the jobs that wait now is nobody's yet.
            if not self._queue.admits(held=held, free=free):
                return False
            free, held = free - 1, held + 1
        return True

    def enter(self, job: Job, now: float) -> None:
        """Put a job that nothing refuses into the queue, and strike out its promise, if any."""
        promise = self._due(job, now)
        if promise is None:
            self._queue.put_nowait(job)
        else:
            self._queue.put_promised(job)
            self._promises.remove(promise)

    def retry_after(self, job: Job, starts: Sequence[float], now: float) -> int:
        """Return in how many whole seconds a refused client finds a place, and keep it.

        It is the first place that the queue's limits would give to its key and that is not
        promised. Beyond the jobs that wait now, places are expected to come as often as
        the key's own waiting jobs start.
        """
        self._forget(now)
        broken = self._due(job, now)
        if broken is None:
            ahead = self._promises
            self._tickets += 1
            ticket = self._tickets
        else:  # It keeps its place in the line.
            self._promises.remove(broken)
            ticket = broken.ticket
            ahead = [promise for promise in self._promises if promise.ticket < ticket]
        kept = self._make_room(job.owner)
        first = self._first if kept else self._after_last
        seconds = max(1, math.ceil(first(job.owner, starts, ahead, now)))
        if kept:
            promise = Promise(
                at=now + seconds,
                ticket=ticket,
                until=now + seconds + GRACE_SECONDS + 0.1 * seconds,
                owner=job.owner,
                mark=_mark(job),
            )
            insort(self._promises, promise)
            self._kept_until = min(self._kept_until, promise.until)
        return seconds

    def _make_room(self, owner: str) -> bool:
        """Return whether one more promise to ``key`` can be kept.

        When there are too many, the key that has most gives up its last one, so that a flood
        of one key leaves the promises of others alone.
        """
        if len(self._promises) < MOST_PROMISES * self._queue.maxsize:
            return True
        counts = Counter(promise.owner for promise in self._promises)
        most, count = counts.most_common(1)[0]
        if counts[owner] + 1 >= count:
            return False
        self._promises.remove(
            next(promise for promise in reversed(self._promises) if promise.owner == most)
        )
        return True

    def _first(
        self, owner: str, starts: Sequence[float], ahead: Sequence[Promise], now: float
    ) -> float:
        free, held = self._queue.free, self._queue.held(owner)
        counted = 0
        for job, start in zip(self._waiting(), starts, strict=True):
            free += 1
            if job.owner == owner:
                held -= 1
            by = now + max(1, math.ceil(start))
            while counted < len(ahead) and ahead[counted].at <= by:
                free -= 1
                held += ahead[counted].owner == owner
                counted += 1
            if self._queue.admits(held=held, free=free):
                return start
        return self._after_last(owner, starts, ahead, now)

    def _after_last(
        self, owner: str, starts: Sequence[float], ahead: Sequence[Promise], now: float
    ) -> float:
        """Return the seconds until a place that comes after all that was promised to the key."""
        own_starts = [
            start for job, start in zip(self._waiting(), starts, strict=True) if job.owner == owner
        ]
        own, last = len(own_starts), own_starts[-1] if own_starts else 0.0
        promised = [promise.at - now for promise in ahead if promise.owner == owner]
        end = starts[-1] if starts else 0.0
        interval = last / own if own else end / max(len(starts), 1)
        return max(end, *promised[-1:]) + interval if promised else end + interval

    def _due(self, job: Job, now: float) -> Promise | None:
        mark = _mark(job)
        for promise in self._promises:
            if promise.at - EARLY_SECONDS > now:
                return None
            if promise.mark == mark:
                return promise
        return None

    def _forget(self, now: float) -> None:
        if now >= self._kept_until:
            self._promises = [promise for promise in self._promises if promise.until > now]
            self._kept_until = min((each.until for each in self._promises), default=math.inf)


def _mark(job: Job) -> int:
    return hash((job.owner, replace(job.request, seed=0)))
