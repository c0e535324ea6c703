"""When those who were refused find a place in the queue."""

import math
from bisect import insort
from collections.abc import Sequence

from service.jobs.queue import JobQueue


class Places:
    """The places that refused clients were told to come back for.

    Nothing else is kept about them, and only until the time has come.
    """

    def __init__(self, queue: JobQueue) -> None:
        self._queue = queue
        self._promised: list[tuple[float, str]] = []

    def retry_after(self, key: str, starts: Sequence[float], *, end: float, now: float) -> int:
        """Return in how many whole seconds a refused client of ``key`` finds a place.

        ``starts`` are the seconds until each job of ``queue.waiting`` starts and so leaves its
        place; ``end`` is when all present work is done. The client gets the first place that
        the queue's limits would give to its key and that was not promised before, so that
        the refused do not all come back at once. Nobody is sent further than the end of the
        present work, by when every place is free.
        """
        self._promised = [promise for promise in self._promised if promise[0] > now]
        free, held, counted = self._queue.free, self._queue.held(key), 0
        for job, start in zip(self._queue.waiting, starts, strict=True):
            free += 1
            held -= job.key == key
            while counted < len(self._promised) and self._promised[counted][0] <= now + start:
                free -= 1
                held += self._promised[counted][1] == key
                counted += 1
            if self._queue.admits(held=held, free=free):
                insort(self._promised, (now + start, key))
                return max(1, math.ceil(start))
        return max(1, math.ceil(end))
