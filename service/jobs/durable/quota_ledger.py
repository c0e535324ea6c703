"""What keys have used of their quotas, kept over a restart."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final

import structlog

from service.access.allowance import DAY_SECONDS, Allowance, Charge
from service.core.work import charged
from service.errors import StoreUnavailable
from service.jobs.store.base import JobStore, Used
from service.jobs.store.clock import SteadyClock
from service.jobs.store.stored import StoredJob

log = structlog.get_logger(__name__)

MINUTE_SECONDS: Final = 60
RETRY_SECONDS: Final = 5.0


class QuotaLedger:
    """Writes down the images that keys were charged for good, with or without a quota.

    Those of one minute and key are in one row. Images of plain answers come to the disk a
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
        self._writing = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    async def open(self, unfinished: Iterable[StoredJob]) -> dict[str, Charge]:
        """Charge what was used in the last day; return the charges of unfinished jobs by id."""
        now = self._clock()
        charges: dict[str, Charge] = {}
        oldest = int((now - DAY_SECONDS) // MINUTE_SECONDS)

        found = [
            (float(used.minute * MINUTE_SECONDS), used.owner, used.images, "")
            for used in await self._store.usage(oldest)
        ]
        found += [(job.created_at, job.owner, charged(job.request), job.id) for job in unfinished]
        for at, owner, images, job_id in sorted(found):  # The oldest first.
            charges[job_id] = self._allowance.restore(owner, images, max(0.0, now - at))
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

    def _kept(self, owner: str, images: int, age_seconds: float) -> None:
        self._pending[owner, int((self._clock() - age_seconds) // MINUTE_SECONDS)] += images
        self._news.set()

    async def _write_down(self) -> None:
        while True:
            await self._news.wait()
            try:
                # The end must not take it for unwritten, and write it a second time.
                await asyncio.shield(self._flush())
            except StoreUnavailable:
                await asyncio.sleep(RETRY_SECONDS)
            except Exception:
                # Whatever it is, it is tried again: else a restart forgets the day.
                log.exception("usage_not_stored")
                await asyncio.sleep(RETRY_SECONDS)

    async def _flush(self) -> None:
        async with self._writing:
            self._news.clear()
            pending, self._pending = self._pending, Counter()
            if not pending:
                return
            try:
                await self._store.add_usage(Used(*of, images) for of, images in pending.items())
            except BaseException:
                self._pending.update(pending)
                self._news.set()
                raise
