"""Where a waiting job stands, and when it will start."""

import heapq
import itertools
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from service.jobs.estimate import LEARNING_RATE, Estimate
from service.jobs.job import Job
from service.jobs.queue import JobQueue
from service.jobs.work import evaluations, pixels

MOST_STRETCH = 4.0
"""How much later than by the present line a key's jobs are expected at most."""


@dataclass(frozen=True, kw_only=True)
class Position:
    """What a waiting client is told."""

    number: int
    """1 for the job that starts next."""
    start_seconds: float
    """Until its first step."""


class Outlook:
    """When the waiting jobs start, in the order in which the queue would serve them.

    The whole line is worked out once after a change of the queue or of the batch, in
    O(n log n), and only if somebody asks; from then on it is moved on by the pixel steps that
    were done. So every watcher can ask at every step.

    Who comes later and goes before is not in the line: how much longer than by the line its
    jobs waited is learned for each key.
    """

    def __init__(self, queue: JobQueue, estimate: Estimate, *, batch_limit: int) -> None:
        self._queue = queue
        self._estimate = estimate
        self.batch_limit = batch_limit
        self._seen: tuple[object, ...] = ()
        self._done = 0
        self._ahead: list[float] = []
        self._numbers: dict[str, int] = {}
        self._expected: dict[str, tuple[float, float]] = {}
        self._stretch: dict[str, float] = {}

    def position(
        self, job: Job, running: Collection[Job], *, delay: float = 0.0
    ) -> Position | None:
        """Return where ``job`` stands, or None when it does not wait.

        ``running`` are the jobs in the engine, ``delay`` the seconds until it is ready.
        """
        self._work_out(running)
        number = self._numbers.get(job.id)
        if number is None:
            return None
        return Position(number=number, start_seconds=delay + self._seconds(number - 1, job.key))

    def starts(self, running: Collection[Job], *, key: str = "", delay: float = 0.0) -> list[float]:
        """Return in how many seconds each job of ``queue.waiting`` starts, as ``key`` sees it."""
        self._work_out(running)
        return [delay + self._seconds(index, key) for index in range(len(self._ahead))]

    def accepted(self, job: Job, running: Collection[Job], now: float) -> None:
        """Note when a job that has just been put should start by the line."""
        self._work_out(running)
        if (number := self._numbers.get(job.id)) is not None:
            self._expected[job.id] = now, self._seconds(number - 1)

    def started(self, job: Job, now: float) -> None:
        """Learn from a job that starts."""
        came, expected = self._expected.pop(job.id, (now, 0.0))
        if expected > 0:
            stretch = min(max(1.0, (now - came) / expected), MOST_STRETCH)
            seen = self._stretch.get(job.key, 1.0)
            self._stretch[job.key] = seen + LEARNING_RATE * (stretch - seen)

    def left(self, job: Job) -> None:
        """Forget a job that left the line without a start."""
        self._expected.pop(job.id, None)

    def _seconds(self, index: int, key: str = "") -> float:
        done = self._estimate.done - self._done
        ahead = max(0.0, self._ahead[index] - done)
        return ahead * self._estimate.pixel_step * self._stretch.get(key, 1.0)

    def _work_out(self, running: Collection[Job]) -> None:
        seen = (self._queue.version, *(job.id for job in running))
        if seen == self._seen:
            return
        self._seen, self._done = seen, self._estimate.done
        waiting = self._queue.waiting
        self._numbers = {job.id: number for number, job in enumerate(waiting, 1)}
        self._ahead = work_ahead(
            waiting, running, batch_limit=self.batch_limit, rest=self._estimate.rest_steps
        )


def work_ahead(
    waiting: Iterable[Job], running: Iterable[Job], *, batch_limit: int, rest: float
) -> list[float]:
    """Return the pixel steps that the engine does before each waiting job starts.

    A model of the engine: its pictures move in step, ``rest`` more steps each for the
    decoding, and the next job enters when fewer than ``batch_limit`` are left.
    """
    batch: list[tuple[float, int, Job]] = []
    ahead, stage, pictures, area = 0.0, 0.0, 0, 0
    starts: list[float] = []
    numbers = itertools.count()

    def enter(job: Job, done: int) -> None:
        nonlocal pictures, area
        steps = evaluations(job.request, steps_done=done) + rest
        heapq.heappush(batch, (stage + steps, next(numbers), job))
        pictures += job.request.num_images
        area += pixels(job.request)

    for job in running:
        enter(job, job.steps_done)
    for job in waiting:
        while batch and pictures >= batch_limit:
            end, _, left = heapq.heappop(batch)
            ahead += (end - stage) * area
            stage = end
            pictures -= left.request.num_images
            area -= pixels(left.request)
        starts.append(ahead)
        enter(job, 0)
    return starts
