"""What becomes of the jobs in the book: written down, and told to those who watch."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace

import structlog

from service.diffusion.generation import Previewed
from service.errors import RequestTimedOut, ServiceError, ShuttingDown
from service.jobs.consumer import Consumer
from service.jobs.endings import Endings
from service.jobs.entry import Entry
from service.jobs.events import PREVIEW
from service.jobs.job import Job, JobState
from service.jobs.store import JobStore
from service.jobs.stored import StoredJob

log = structlog.get_logger(__name__)

Told = Callable[[StoredJob], None]


class Follower:
    """Hears from the consumer how the jobs of ``entries`` fare.

    ``told`` hears of each end that was written down.
    """

    def __init__(
        self, consumer: Consumer, store: JobStore, endings: Endings, *, told: Told
    ) -> None:
        self.entries: dict[str, Entry] = {}
        """Jobs that are not over on the disk, by id."""
        self._consumer, self._store, self._endings = consumer, store, endings
        self._told = told
        consumer.observer = self

    def keeps(self, job: Job) -> bool:
        """Say whether it is on the disk and not over."""
        return job.id in self.entries

    def begun(self, job: Job) -> None:
        """Count the attempt, so that a job that ends every process is given up in the end."""
        if entry := self.entries.get(job.id):
            self._endings.later(self._store.begin(job.id))
            entry.events.say("started", {"attempt": job.attempts})
            if entry.events.viewers:
                self._consumer.preview(job, wanted=True)

    def stepped(self, job: Job, left_seconds: float) -> None:
        """Tell those who watch."""
        if entry := self.entries.get(job.id):
            done, steps = job.steps_done, job.request.steps
            eta = {"eta_seconds": round(left_seconds, 3)}
            entry.events.say("step", {"step": done, "steps": steps, **eta})

    def previewed(self, job: Job, preview: Previewed) -> None:
        """Show those who asked for it how far the picture is."""
        if (entry := self.entries.get(job.id)) and entry.events.viewers:
            data = {"step": preview.step, "steps": job.request.steps}
            size = {"width": preview.width, "height": preview.height}
            entry.events.say(PREVIEW, {**data, **size, "pixels": preview.pixels})

    def requeued(self, job: Job) -> None:
        """Note that it waits again."""
        if entry := self.entries.get(job.id):
            self._endings.later(self._store.requeue(job.id))
            self.say_queued(entry)

    def moved(self) -> None:
        """Tell those who watch a waiting job how the line has moved."""
        for entry in self.entries.values():
            if entry.events.watchers and entry.job.state is JobState.QUEUED:
                self.say_queued(entry)

    def ended(self, job: Job) -> None:
        """Write the end down, except where a restart shall run the job again."""
        entry = self.entries.get(job.id)
        if entry is None:
            return
        if isinstance(job.error, ShuttingDown):
            if job.started is not None:  # It ran, and nothing was wrong with it.
                self._endings.later(self._endings.hand_back(job))
            entry.events.say("queued", {"position": None, "reason": "the service restarts"})
            return
        self._endings.later(self._end(entry), entry.context)

    async def _end(self, entry: Entry) -> None:
        stored, told = entry.stored, False
        try:
            stored, told = await self._endings.end(entry), True
        except Exception:
            # Whatever it is, nobody may wait for ever. The row is as it was: a restart runs it.
            log.exception("job_end_failed", job_id=stored.id)
            error = ServiceError("The end of the job could not be written down.")
            stored = replace(
                stored, state=JobState.FAILED, error_code=error.code, error_detail=error.detail
            )
        if entry.deadline is not None:
            entry.deadline.cancel()
        self.entries.pop(stored.id, None)
        entry.settled.set()
        kind = {JobState.SUCCEEDED: "finished", JobState.CANCELLED: "cancelled"}
        code, detail = stored.error_code, stored.error_detail
        data = {"code": code, "detail": detail} if code else {}
        entry.events.say(kind.get(stored.state, "failed"), {"id": stored.id, **data})
        if told:
            self._told(stored)

    def watch_deadline(self, entry: Entry) -> None:
        """End the job when its time is over."""
        if entry.stored.deadline_at is None:
            return
        late = RequestTimedOut("It was not finished within the time that it was given.")
        # A clock that was set back meanwhile must not give it more time than it was given.
        given = entry.stored.deadline_at - entry.stored.created_at
        entry.deadline = asyncio.get_running_loop().call_later(
            min(given, max(0.0, entry.stored.deadline_at - time.time())),
            lambda: self._consumer.cancel(entry.job, late),
        )

    def say_queued(self, entry: Entry) -> None:
        """Tell where a waiting job stands, unless that was said last."""
        place = self._consumer.position(entry.job)
        if place is None or entry.job.state is not JobState.QUEUED:
            return
        data = {"position": place.number, "start_seconds": round(place.start_seconds, 3)}
        newest = entry.events.newest
        if newest is None or newest.kind != "queued" or newest.data != data:
            entry.events.say("queued", data)
