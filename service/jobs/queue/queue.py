"""Bounded job queue with fair turns per API key."""

import asyncio
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum

from service.core.work import work
from service.jobs.job import Job
from service.jobs.queue.fairness import Lanes, Turn

SPARE = 4
"""Waiting jobs a key may have for each place that is free: alone it gets four fifths of all."""


RETURNED: Turn = (0, 0, 0)
"""Turn of a job that was served before: it goes before all others."""


class Limit(StrEnum):
    """What refuses a job."""

    QUEUE = "queue"
    """Every place is taken."""
    KEY = "key"
    """The places that are free are kept for other keys."""
    PROMISED = "promised"
    """The places that are free are promised to those who were refused before."""


class JobQueue(asyncio.Queue[Job]):
    """A bounded ``asyncio.Queue`` that serves keys in fair turns; see ``fairness.Lanes``.

    ``weights`` are the keys' shares of the GPU time, 1 for those not named. Where the queue
    is ``shared`` by several keys, none may take every place: one that has ``SPARE`` times as
    many jobs waiting as places are free is refused, so that a key that has none waiting finds
    a place (Choudhury and Hahne, Dynamic Queue Length Thresholds, 1998). That limit is never
    waited for: ``put`` raises at once what ``put_nowait`` raises.

    A job can also be put back, restored above the bound, or discarded.
    """

    def __init__(
        self, maxsize: int = 0, *, weights: Mapping[str, int] | None = None, shared: bool = False
    ) -> None:
        self._lanes = Lanes(weights or {})
        self._shared = shared
        self._returned: deque[Job] = deque()
        """Jobs that were served before; they go before all others."""
        self._held: Counter[str] = Counter()
        self._order: tuple[Job, ...] | None = ()
        self._turns: list[Turn] = []
        self._returning = False
        self._forced = False
        self._leaving: Job | None = None
        self.version = 0
        """Changes whenever the order may have."""
        super().__init__(maxsize)

    def _init(self, maxsize: int) -> None:  # noqa: ARG002 - asyncio.Queue's hook
        self._queue: dict[str, Job] = {}

    def _put(self, item: Job) -> None:
        self._queue[item.id] = item
        self._held[item.owner] += 1
        if self._returning:
            self._returned.appendleft(item)
        else:
            self._lanes.put(item)
        self._changed()

    def _get(self) -> Job:
        job = self._leaving or (self._returned.popleft() if self._returned else self._lanes.take())
        del self._queue[job.id]
        self._held[job.owner] -= 1
        if not self._held[job.owner]:
            del self._held[job.owner]
        self._changed()
        return job

    def _changed(self) -> None:
        self._order = None
        self.version += 1

    def full(self) -> bool:
        """Return whether every place is taken; never so for a job that was accepted before."""
        return super().full() and not self._forced

    def put_nowait(self, item: Job) -> None:
        """Put a job into its key's lane.

        Raises:
            asyncio.QueueFull: ``limit`` says why.

        """
        if not self._forced and self.limit(item.owner) is not None:
            raise asyncio.QueueFull
        super().put_nowait(item)

    def put_promised(self, job: Job) -> None:
        """Put a job into a free place though its key may hold more than its share by now.

        Raises:
            asyncio.QueueFull: every place is taken.

        """
        if self.full():
            raise asyncio.QueueFull
        self.restore(job)

    def limit(self, owner: str) -> Limit | None:
        """Return what refuses a job of ``owner``, or None when there is a place for it."""
        if self.full():
            return Limit.QUEUE
        return None if self.admits(held=self.held(owner), free=self.free) else Limit.KEY

    def admits(self, *, held: int, free: int) -> bool:
        """Return whether an owner of ``held`` waiting jobs may take one of ``free`` places."""
        if self.maxsize <= 0:
            return True
        return free > 0 and not (self._shared and held >= SPARE * free)

    def find(self, job_id: str) -> Job | None:
        """Return a waiting job."""
        return self._queue.get(job_id)

    def held(self, owner: str) -> int:
        """Return how many jobs of ``owner`` wait."""
        return self._held.get(owner, 0)

    @property
    def free(self) -> int:
        """Places not taken; fewer than 0 with jobs above the bound."""
        return self.maxsize - self.qsize()

    def put_back(self, job: Job) -> None:
        """Put a job that ``get`` has returned before all others, above the bound if need be.

        An accepted job that lost its engine must not be refused, and its key has paid for it.
        """
        self._returning = True
        try:
            self.restore(job)
        finally:
            self._returning = False
        self.task_done()  # For the get that is undone.

    def restore(self, job: Job) -> None:
        """Put a job that an earlier process accepted into its lane, above the bound if need be."""
        self._forced = True
        try:
            self.put_nowait(job)
        finally:
            self._forced = False

    def take(self, job: Job) -> None:
        """Serve a waiting job, at its key's cost: the first one, or one before its turn."""
        if job in self._returned:
            self._returned.remove(job)
        else:
            self._lanes.take(job)
        self._leave(job)

    def discard(self, job: Job) -> bool:
        """Take ``job`` out of the line; return whether it was in it."""
        if job.id not in self._queue:
            return False
        if not self._lanes.discard(job):
            self._returned.remove(job)
        self._leave(job)
        self.task_done()
        return True

    def _leave(self, job: Job) -> None:
        self._leaving = job
        try:
            self.get_nowait()  # Wakes a put that waits for a place.
        finally:
            self._leaving = None

    def refund(self, job: Job) -> None:
        """Credit the key of a job that leaves the engine unfinished with what is left of it.

        The images of one that was interrupted are decoded: only its steps are left.
        """
        left = work(job.request, steps_done=job.steps_done)
        if job.interrupted and job.drawn is not None:
            left -= work(job.request, steps_done=job.request.total_steps)
        self._lanes.refund(job.owner, left)
        self._changed()

    @property
    def first(self) -> Job | None:
        """The job to be served next; ``waiting`` costs a sort after each change."""
        if self._returned:
            return self._returned[0]
        return None if self.empty() else self._lanes.first()

    def in_order(self) -> Iterator[Job]:
        """Yield the jobs in line, the next one first."""
        if (first := self.first) is not None:
            yield first
            yield from self.waiting[1:]

    @property
    def waiting(self) -> tuple[Job, ...]:
        """The jobs in line, in the order in which they would be served if none came."""
        if self._order is None:
            lanes = self._lanes.order()
            self._order = (*self._returned, *(job for _, job in lanes))
            self._turns = [RETURNED] * len(self._returned) + [turn for turn, _ in lanes]
        return self._order

    @property
    def turns(self) -> Sequence[Turn]:
        """The turns of the jobs in ``waiting``; a later ``turn`` compares to them."""
        return self._turns if self.waiting else ()

    def turn(self, job: Job) -> Turn:
        """Return the turn of a waiting job, without a sort of all."""
        return RETURNED if job in self._returned else self._lanes.turn(job)
