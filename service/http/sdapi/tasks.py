"""Jobs of each caller: what ``progress``, ``interrupt`` and ``skip`` are about.

AUTOMATIC1111 has one user and one job; here each caller sees and ends its own jobs only. The
caller is the key, without keys the address of the client; ``force_task_id`` tells its jobs apart.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from aiohttp import web

from service.http.middleware.auth import caller_of as caller_of  # noqa: PLC0414 - others take it from here
from service.http.state import JOBS
from service.images.encode import preview
from service.jobs.durable.event_log import PREVIEW
from service.jobs.durable.live_job import LiveJob
from service.jobs.job import FINAL, JobState
from service.jobs.service import JobService
from service.system.executors import CONVERSIONS


@dataclass(eq=False, kw_only=True)
class Task:
    """A job of ``txt2img`` while its client waits."""

    caller: str
    name: str
    """``force_task_id``; empty for none."""
    live: LiveJob | None
    """None where it was over before it was sent again."""
    interrupted: bool = False
    """Whether its caller ended it."""
    _watching: asyncio.Task[None] | None = field(default=None, repr=False)
    _seen: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def state(self) -> JobState:
        """Where its job is."""
        return JobState.SUCCEEDED if self.live is None else self.live.job.state

    def watch(self, jobs: JobService) -> None:
        """Let the engine make previews from now on; once is enough."""
        if self._watching is None and self.live is not None:
            self._watching = asyncio.create_task(self._follow(jobs, self.live), name="previews")

    async def _follow(self, jobs: JobService, live: LiveJob) -> None:
        events = jobs.events(live, previews=True)
        try:
            async for event in events:
                if event.kind == PREVIEW:
                    self._seen = dict(event.data)
        finally:
            await events.aclose()

    async def image(self) -> str | None:
        """Return the newest preview as base64; None before the first."""
        if not self._seen or self.live is None:
            return None
        shown = await CONVERSIONS.run_for(self.live.job.owner, partial(preview, self._seen))
        return str(shown["image_base64"])

    async def close(self) -> None:
        """End the previews."""
        if self._watching is not None:
            self._watching.cancel()
            with suppress(asyncio.CancelledError):
                await self._watching


class Tasks:
    """The jobs of all callers while their clients wait, the oldest first."""

    def __init__(self) -> None:
        self._tasks: list[Task] = []

    @asynccontextmanager
    async def one(self, task: Task) -> AsyncIterator[None]:
        """Hold a task until its images are made or its client is gone."""
        self._tasks.append(task)
        try:
            yield
        finally:
            self._tasks.remove(task)
            await task.close()

    def current(self, caller: str, name: str = "") -> Task | None:
        """Return the job that a caller means: its oldest one that runs, else the oldest.

        With a name it is the one of that name, if there is one.
        """
        mine = [each for each in self.of(caller) if name in ("", each.name)]
        running = [each for each in mine if each.state is JobState.RUNNING]
        return next(iter((*running, *mine)), None)

    def of(self, caller: str) -> list[Task]:
        """Return the unfinished jobs of a caller."""
        return [each for each in self._tasks if each.caller == caller and each.state not in FINAL]


TASKS: Final = web.AppKey("tasks", Tasks)


def interrupt(request: web.Request, name: str) -> None:
    """End the job that the caller means early; without one nothing happens."""
    task = request.app[TASKS].current(caller_of(request), name)
    if task is not None and task.live is not None:
        task.interrupted = True
        request.app[JOBS].dispatcher.interrupt(task.live.job)
