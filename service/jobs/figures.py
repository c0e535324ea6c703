"""What an operator sees of the jobs on the disk: counted now and then, not at each scrape."""

import asyncio
import sqlite3
from collections.abc import Callable
from typing import Final

import structlog

from service.errors import ServiceError
from service.jobs.clock import SteadyClock
from service.jobs.results import Results
from service.jobs.schema import UNFINISHED
from service.jobs.store import JobStore
from service.jobs.stored import Delivery, DeliveryState
from service.telemetry.metrics import Metrics, Reading

log = structlog.get_logger(__name__)

SECONDS: Final = 15.0
UNDELIVERED: Final = (
    "SELECT count(*), min(finished_at) FROM jobs"  # noqa: S608 - words of our own
    f" WHERE webhook_state = 'pending' AND NOT {UNFINISHED}"
)
ATTEMPTS: Final = {
    DeliveryState.DELIVERED: "delivered",
    DeliveryState.PENDING: "retried",
    DeliveryState.FAILED: "failed",
}


class Figures:
    """Shows how many jobs, bytes and deliveries are kept; none where the disk does not say."""

    def __init__(
        self,
        store: JobStore,
        results: Results,
        metrics: Metrics,
        *,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._store, self._results, self._metrics = store, results, metrics
        self._clock = clock or SteadyClock()
        self._removed = 0

    async def run(self) -> None:
        """Count again and again."""
        while True:
            try:
                await self.count()
            except Exception:
                # Whatever it is: figures that stand still look like a service that rests.
                log.exception("figures_failed")
                self._forget()
            await asyncio.sleep(SECONDS)

    async def count(self) -> None:
        """Count once."""
        try:
            counts = await self._store.counts()
            ((pending, oldest),) = await self._store.run(_undelivered)
            used = await asyncio.to_thread(lambda: self._results.used_bytes)
        except ServiceError:  # It has said so in the log.
            self._forget()
            return
        for state, count in counts.items():
            self._metrics.jobs_kept.labels(state.value).set(count)
        age = 0.0 if oldest is None else max(0.0, self._clock() - oldest)
        for reading, value in zip(self._readings, (used, pending, age), strict=True):
            reading.set(value)

    def _forget(self) -> None:
        self._metrics.jobs_kept.clear()
        for reading in self._readings:
            reading.forget()

    def removed(self, reason: str) -> None:
        """Count the bytes of pictures that were removed since this was called last."""
        total = self._results.removed_bytes
        self._metrics.results_removed.labels(reason).inc(total - self._removed)
        self._removed = total

    async def attempted(self, job_id: str, delivery: Delivery) -> None:
        """Count an attempt at a webhook, and keep what came of it."""
        self._metrics.webhook_attempts.labels(ATTEMPTS[delivery.state]).inc()
        await self._store.deliver(job_id, delivery)

    @property
    def _readings(self) -> tuple[Reading, Reading, Reading]:
        metrics = self._metrics
        return metrics.results_bytes, metrics.webhooks_pending, metrics.webhook_oldest


def _undelivered(connection: sqlite3.Connection) -> list[tuple[int, float | None]]:
    return connection.execute(UNDELIVERED).fetchall()
