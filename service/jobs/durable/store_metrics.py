"""What an operator sees of the jobs on the disk: counted now and then, not at each scrape."""

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

from service.core.outcome import Delivery, DeliveryState
from service.errors import ServiceError
from service.jobs.inputs.base import InputStore
from service.jobs.results.base import ResultStore
from service.jobs.store.base import JobStore
from service.jobs.store.clock import SteadyClock
from service.telemetry.metrics import Metrics
from service.telemetry.registry import Reading

log = structlog.get_logger(__name__)

SECONDS: Final = 15.0
ATTEMPTS: Final = {
    DeliveryState.DELIVERED: "delivered",
    DeliveryState.PENDING: "retried",
    DeliveryState.FAILED: "failed",
}


class StoreMetrics:
    """Shows how many jobs, bytes and deliveries are kept; none where the disk does not say."""

    def __init__(
        self,
        store: JobStore,
        results: ResultStore,
        inputs: InputStore,
        metrics: Metrics,
        *,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._store, self._results, self._metrics = store, results, metrics
        self._inputs = inputs
        self._clock = clock or SteadyClock()
        self._removed = 0
        self._damaged = 0

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
            figures = await self._store.figures()
            used = await self._results.used_bytes()
            inputs = sum((await self._inputs.sizes()).values())
        except ServiceError:  # It has said so in the log.
            self._forget()
            return
        damaged = self._results.damaged
        self._metrics.results_damaged.inc(damaged - self._damaged)
        self._damaged = damaged
        for state, count in counts.items():
            self._metrics.jobs_kept.labels(state.value).set(count)
        since = figures.undelivered_since
        age = 0.0 if since is None else max(0.0, self._clock() - since)
        values = (used, inputs, figures.undelivered, age, figures.set_aside)
        for reading, value in zip(self._readings, values, strict=True):
            reading.set(value)

    def _forget(self) -> None:
        self._metrics.jobs_kept.clear()
        for reading in self._readings:
            reading.forget()

    def removed(self, reason: str) -> None:
        """Count the bytes of images that were removed since this was called last."""
        total = self._results.removed_bytes
        self._metrics.results_removed.labels(reason).inc(total - self._removed)
        self._removed = total

    async def attempted(self, job_id: str, delivery: Delivery) -> None:
        """Count an attempt at a webhook, and keep what came of it."""
        self._metrics.webhook_attempts.labels(ATTEMPTS[delivery.state]).inc()
        await self._store.deliver(job_id, delivery)

    @property
    def _readings(self) -> tuple[Reading, ...]:
        metrics = self._metrics
        return (
            metrics.results_bytes,
            metrics.inputs_bytes,
            metrics.webhooks_pending,
            metrics.webhook_oldest,
            metrics.rows_set_aside,
        )
