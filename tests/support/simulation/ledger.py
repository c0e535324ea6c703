"""What must hold in every simulation, whatever happens in it."""

from collections import Counter
from collections.abc import Sequence
from typing import Final

from service.jobs.dispatch.dispatcher import Dispatcher
from service.jobs.job import Job
from service.jobs.observer import Observer

ROUNDING: Final = 1e-6


class Ledger(Observer):
    """Counts the jobs of a dispatcher at every moment, and how often each one ends."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        """Follow the jobs of ``dispatcher``."""
        self.waiting = 0.0
        """Jobs in the queue, summed over the seconds."""
        self.running = 0.0
        """Jobs in the engines, summed over the seconds."""
        self.requeued_jobs = 0
        """How often a job lost its engine."""
        self.lost = 0.0
        """GPU seconds of attempts that were lost with their engines."""
        self.ends = 0
        """Jobs that are over."""
        self._begun: set[str] = set()
        """Jobs in the engines."""
        self._ends: Counter[str] = Counter()
        self._epochs: dict[str, int] = {}
        self._dispatcher = dispatcher
        dispatcher.observer = self

    def passes(self, seconds: float) -> None:
        """Count what is there while so many seconds pass."""
        self.waiting += self._dispatcher.depth * seconds
        self.running += len(self._begun) * seconds

    def begun(self, job: Job) -> None:
        """Insist that the number of an attempt only grows."""
        assert job.epoch > self._epochs.get(job.id, 0), f"{job} began an old attempt"
        self._epochs[job.id] = job.epoch
        self._begun.add(job.id)

    def requeued(self, job: Job, *, counted: bool = True) -> None:
        """Count a job that lost its engine."""
        self._begun.discard(job.id)
        self.requeued_jobs += counted
        self.lost += job.gpu_seconds

    def ended(self, job: Job) -> None:
        """Count an end."""
        self._begun.discard(job.id)
        self.ends += 1
        self._ends[job.id] += 1

    def check(self, accepted: Sequence[Job]) -> None:
        """Insist that no job was lost or ended twice, and on Little's law.

        Little (1961): the mean number of jobs is their rate times their mean time. Over a run that
        begins and ends empty it holds exactly: the jobs, summed over the seconds, are the seconds,
        summed over the jobs. The jobs are those of the queue and those that the dispatcher began
        and did not end; the seconds are those that the jobs tell.
        """
        assert all(job.final for job in accepted), "a job was accepted and never ended"
        assert set(self._ends) == {job.id for job in accepted}
        assert set(self._ends.values()) <= {1}, "a job ended twice"
        seconds = sum((job.ended or 0.0) - job.created for job in accepted)
        counted = self.waiting + self.running
        assert abs(counted - seconds) <= ROUNDING * max(seconds, 1.0), (
            f"Little's law: {counted} jobs x s counted, {seconds} s of jobs"
        )
