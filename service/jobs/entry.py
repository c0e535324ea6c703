"""A job that is not over on the disk, and who has to do with it."""

import asyncio
from contextvars import Context, copy_context
from dataclasses import dataclass, field

from service.jobs.allowance import Charge
from service.jobs.events import EventLog
from service.jobs.job import Job
from service.jobs.stored import StoredJob


@dataclass(eq=False)
class Entry:
    """A job that is not over on the disk."""

    job: Job
    stored: StoredJob
    promised: bool = True
    """Somebody was told that it will be run; else it ends when the last client hangs up."""
    clients: int = 0
    """Requests that wait for its pictures."""
    events: EventLog = field(default_factory=EventLog)
    settled: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when its end is on the disk."""
    deadline: asyncio.TimerHandle | None = None
    context: Context = field(default_factory=copy_context, repr=False)
    """Of the request that brought it: what is done at its end is part of the same trace."""

    def __post_init__(self) -> None:
        """Let the end of the job and the pictures it costs be written down as one."""
        if self.job.charge is not None:
            self.job.charge.with_job = True


def again(stored: StoredJob, charge: Charge | None) -> Job:
    """Return the job of a row that an earlier process did not finish."""
    return Job(
        id=stored.id,
        key=stored.key,
        request=stored.request,
        request_id=stored.request_id,
        trace_id=stored.trace_id,
        attempts=stored.attempts,
        charge=charge,
    )
