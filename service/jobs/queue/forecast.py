"""Where a waiting job stands, and when it will start."""

import heapq
import time
from bisect import bisect_left
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final, Protocol

from service.core.work import evaluations, pixels, places, work
from service.jobs.job import Job
from service.jobs.queue.estimate import LEARNING_RATE, Estimate
from service.jobs.queue.fairness import Turn
from service.jobs.queue.queue import JobQueue

MOST_STRETCH = 4.0
"""How much later than by the present line a key's jobs are expected at most."""

LARGE: Final = 256
"""Slots and waiting jobs from which on the line is worked out anew only every so often."""

AGAIN_SECONDS: Final = 0.25
"""How old a large line may be: one of 1,000 slots takes as long as the start of ten jobs."""


class Slot(Protocol):
    """What the forecast reads of an engine slot."""

    @property
    def jobs(self) -> Mapping[str, Job]:
        """The jobs in the engine, by id."""

    @property
    def estimate(self) -> Estimate:
        """How long work takes there."""

    @property
    def batch_limit(self) -> int:
        """Images in the batch at most."""

    @property
    def delay(self) -> float:
        """Seconds until the engine can begin."""

    @property
    def closed(self) -> bool:
        """Whether no job will start there any more."""

    def switch_seconds(self, job: Job) -> float:
        """Seconds that a job's model takes to load; 0 where it is loaded."""


Start = tuple[Slot, float]
"""The slot in which a job starts, and the pixel steps that ``Estimate.done`` counts then."""


@dataclass(frozen=True, kw_only=True)
class Position:
    """Place of a waiting job in the line."""

    number: int
    """1 for the job that starts next."""
    start_seconds: float
    """Until its first step."""


class QueueForecast:
    """When the waiting jobs start, in the order in which the queue would serve them.

    The whole line is worked out once after a change of the queue or of a batch, in
    O(n log n), and only if somebody asks; from then on it is moved on by the pixel steps that
    were done. So every watcher can ask at every step. Of a ``LARGE`` line the same is done at most
    every ``AGAIN_SECONDS``: until then a job is expected when the one that had its place was, and
    one that is not in the line yet in the place that its turn gives it there, which a bisection
    finds.

    Each job is expected in the slot that has room first. Jobs that will come later and go
    before are not in the line, nor are full batches that a short job joins: how much longer or
    shorter than by the line its jobs waited is learned for each key, and for its jobs of about
    the same work.
    """

    def __init__(self, queue: JobQueue, slots: Sequence[Slot]) -> None:
        self._queue = queue
        self._slots = slots
        self._seen: tuple[object, ...] = ()
        self._again = 0.0
        """When a large line may be worked out anew."""
        self._large = False
        self._told: dict[str, list[float]] = {}
        """By owner, what ``starts`` said since a large line was worked out."""
        self._starts: list[Start] = []
        self._waiting: tuple[Job, ...] = ()
        self._numbers: dict[str, int] = {}
        self._turns: Sequence[Turn] = ()
        self._expected: dict[str, tuple[float, float]] = {}
        self._stretch: dict[tuple[str, int], float] = {}
        """By owner and size of the job, true waits over those of the line; 0 is for every size."""

    def position(self, job: Job) -> Position | None:
        """Return where ``job`` stands, or None when it does not wait."""
        self._work_out()
        if self._queue.find(job.id) is None or not self._starts:
            return None
        number = min(self._number(job), self._queue.qsize())
        stretch = self._stretch.get((job.owner, size_of(job)), 1.0)
        return Position(number=number, start_seconds=self._start(number - 1, stretch))

    def _number(self, job: Job) -> int:
        known = self._numbers.get(job.id)
        return known or bisect_left(self._turns, self._queue.turn(job)) + 1

    @property
    def waiting(self) -> Sequence[Job]:
        """The jobs that waited when ``starts`` was worked out last, the next one first."""
        return self._waiting

    def starts(self, owner: str = "") -> Sequence[float]:
        """Return in how many seconds each job of ``waiting`` starts, as ``owner`` sees it."""
        self._work_out()
        if self._large:
            if owner not in self._told:
                self._told[owner] = self._expect(owner)
            return self._told[owner]
        return self._expect(owner)

    def _expect(self, owner: str) -> list[float]:
        stretch = max(1.0, self._stretch.get((owner, 0), 1.0))
        seconds = (self._start(index, stretch) for index in range(len(self._starts)))
        return list(accumulate(seconds, max))

    def accepted(self, job: Job, now: float) -> None:
        """Note when a job that has just been put should start by the line."""
        self._work_out()
        if self._starts:
            self._expected[job.id] = now, self._seconds(self._number(job) - 1)

    def started(self, job: Job, now: float) -> None:
        """Learn from a job that starts; little from one that was expected within a second.

        Its true wait is that for the end of a step, which may be many times as long.
        """
        came, expected = self._expected.pop(job.id, (now, 0.0))
        if expected > 0:
            stretch = min((now - came) / expected, MOST_STRETCH)
            rate = LEARNING_RATE * min(expected, 1.0)
            for kind in ((job.owner, 0), (job.owner, size_of(job))):
                seen = self._stretch.get(kind, 1.0)
                self._stretch[kind] = seen + rate * (stretch - seen)

    def left(self, job: Job) -> None:
        """Forget a job that left the line without a start."""
        self._expected.pop(job.id, None)

    def _start(self, index: int, stretch: float) -> float:
        index = min(index, len(self._starts) - 1)
        slot = self._starts[index][0]
        ready = slot.delay + slot.switch_seconds(self._waiting[index])
        return ready + stretch * self._seconds(index)

    def _seconds(self, index: int) -> float:
        slot, done = self._starts[min(index, len(self._starts) - 1)]
        return max(0.0, done - slot.estimate.done) * slot.estimate.pixel_step

    def _work_out(self) -> None:
        self._large = self._queue.qsize() + len(self._slots) >= LARGE
        now = time.monotonic() if self._large else 0.0
        if self._large and self._starts and now < self._again:
            return
        self._told.clear()
        self._again = now + AGAIN_SECONDS
        seen = (
            self._queue.version,
            *((slot.closed, slot.delay, *slot.jobs) for slot in self._slots),
        )
        if seen == self._seen:
            return
        self._seen = seen
        waiting, self._turns = self._queue.waiting, self._queue.turns
        self._waiting = waiting
        self._numbers = {job.id: number for number, job in enumerate(waiting, 1)}
        live = [slot for slot in self._slots if not slot.closed]
        self._starts = line_up(waiting, live or self._slots)


def size_of(job: Job) -> int:
    """Return the size of a job's work: the same for jobs that differ by less than a factor of 2."""
    return work(job.request).bit_length()


def line_up(waiting: Iterable[Job], slots: Sequence[Slot]) -> list[Start]:
    """Return where each waiting job starts."""
    models = [_openings(slot) for slot in slots]
    line = [(*next(model), number) for number, model in enumerate(models)]
    heapq.heapify(line)
    starts = []
    for job in waiting:
        _, done, number = line[0]
        starts.append((slots[number], done))
        heapq.heapreplace(line, (*models[number].send(job), number))
    return starts


def _openings(slot: Slot) -> Generator[tuple[float, float], Job, None]:
    """Yield when another job may enter, in seconds and in pixel steps; take that job.

    A model of the engine: its images move in step, ``rest`` more steps each for the decoding,
    and the next job enters when fewer than the batch limit are left.
    """
    pixel_step, rest = slot.estimate.pixel_step, slot.estimate.rest_steps
    done, delay, limit = slot.estimate.done, slot.delay, slot.batch_limit
    batch: list[tuple[float, int, Job]] = []
    entered, images, area = 0, 0.0, 0.0
    ahead, stage = 0.0, 0.0
    entering: Iterable[Job] = slot.jobs.values()
    while True:
        for job in entering:
            entered += 1
            end = stage + evaluations(job.request, steps_done=job.steps_done) + rest
            heapq.heappush(batch, (end, entered, job))
            images += places(job.request)
            area += slot.estimate.weight(job.model) * pixels(job.request)
        while images + 1 > limit and batch:
            end, _, left = heapq.heappop(batch)
            ahead += (end - stage) * area
            stage = end
            images -= places(left.request)
            area -= slot.estimate.weight(left.model) * pixels(left.request)
        entering = ((yield delay + ahead * pixel_step, done + ahead),)
