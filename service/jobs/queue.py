"""The one bounded queue between the door and the engine."""

import asyncio
from collections import deque

from service.jobs.job import Job


class JobQueue(asyncio.Queue[Job]):
    """A bounded ``asyncio.Queue`` of jobs that can also be left, and re-entered at the head."""

    _returning = False

    def _init(self, maxsize: int) -> None:  # noqa: ARG002 - asyncio.Queue's hook
        self._line: deque[Job] = deque()
        self._queue = self._line

    def _get(self) -> Job:
        return self._line.popleft()

    def _put(self, item: Job) -> None:
        if self._returning:
            self._line.appendleft(item)
        else:
            self._line.append(item)

    def full(self) -> bool:
        """Return whether the line is at its bound; never so for a job that comes back."""
        return super().full() and not self._returning

    def put_back(self, job: Job) -> None:
        """Put a job that was served before at the head, above the bound if need be.

        An accepted job that lost its engine must not be refused.
        """
        self._returning = True
        try:
            self.put_nowait(job)
        finally:
            self._returning = False

    def discard(self, job: Job) -> bool:
        """Take ``job`` out of the line; return whether it was in it."""
        try:
            self._line.remove(job)
        except ValueError:
            return False
        return True

    @property
    def waiting(self) -> tuple[Job, ...]:
        """The jobs in line, the next one first."""
        return tuple(self._line)
