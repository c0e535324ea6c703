"""What keys have used of their quotas, kept over a restart."""

import asyncio
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final

import structlog

from service.errors import StoreUnavailable
from service.jobs.allowance import DAY_SECONDS, Allowance, Charge
from service.jobs.clock import SteadyClock
from service.jobs.schema import transaction
from service.jobs.statements import USED
from service.jobs.store import JobStore
from service.jobs.stored import StoredJob

log = structlog.get_logger(__name__)

MINUTE_SECONDS: Final = 60
RETRY_SECONDS: Final = 5.0


class Usage:
    """Writes down the pictures that keys with a quota were charged for good.

    Those of one minute and key are in one row. Pictures of plain answers come to the disk a
    moment after their job's end: no request waits for it, and a crash costs the last moment at
    most. Those of durable jobs come with the end of their job, in one transaction; what jobs
    that are not over were charged is in their own rows.
    """

    def __init__(
        self, store: JobStore, allowance: Allowance, *, clock: Callable[[], float] | None = None
    ) -> None:
        self._store, self._allowance = store, allowance
        self._clock = clock or SteadyClock()
        self._pending: Counter[tuple[str, int]] = Counter()
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def open(self, unfinished: Iterable[StoredJob]) -> dict[str, Charge]:
        """Charge what was used in the last day; return the charges of unfinished jobs by id."""
        now = self._clock()
        charges: dict[str, Charge] = {}
        oldest = int((now - DAY_SECONDS) // MINUTE_SECONDS)

        def work(connection: sqlite3.Connection) -> list[tuple[str, int, int]]:
            with transaction(connection):
                connection.execute("DELETE FROM usage WHERE minute < ?", (oldest,))
                return connection.execute("SELECT key, minute, images FROM usage").fetchall()

        found = [
            (float(minute * MINUTE_SECONDS), key, images, "")
            for key, minute, images in await self._store.run(work, changes=True)
        ]
        found += [(job.created_at, job.key, job.request.num_images, job.id) for job in unfinished]
        for at, key, images, job_id in sorted(found):  # The oldest first.
            charges[job_id] = self._allowance.restore(key, images, max(0.0, now - at))
        self._allowance.kept = self._kept
        self._task = asyncio.create_task(self._write_down(), name="usage")
        return charges

    async def close(self) -> None:
        """Write down what is left."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        with suppress(StoreUnavailable):  # It has said so in the log.
            await self._flush()

    def _kept(self, key: str, images: int, age_seconds: float) -> None:
        self._pending[key, int((self._clock() - age_seconds) // MINUTE_SECONDS)] += images
        self._news.set()

    async def _write_down(self) -> None:
        while True:
            await self._news.wait()
            try:
                await self._flush()
            except StoreUnavailable:
                await asyncio.sleep(RETRY_SECONDS)
            except Exception:
                # Whatever it is, it is tried again: else a restart forgets the day.
                log.exception("usage_not_stored")
                await asyncio.sleep(RETRY_SECONDS)

    async def _flush(self) -> None:
        self._news.clear()
        pending, self._pending = self._pending, Counter()
        if not pending:
            return
        rows = [(key, minute, images) for (key, minute), images in pending.items()]

        def work(connection: sqlite3.Connection) -> None:
            with transaction(connection):
                connection.executemany(USED, rows)

        try:
            await self._store.run(work, changes=True)
        except BaseException:
            self._pending.update(pending)
            self._news.set()
            raise
