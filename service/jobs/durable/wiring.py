"""The parts behind durable jobs, put together, opened and closed in their order."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import structlog

from service.access.allowance import Allowance
from service.config.table import Config
from service.config.webhook_key import webhook_key
from service.errors import ConfigError, ServiceError
from service.jobs.dispatch.dispatcher import Dispatcher
from service.jobs.durable.quota_ledger import QuotaLedger
from service.jobs.durable.result_writer import Describe, Encode, OfSpans, ResultWriter
from service.jobs.durable.store_metrics import StoreMetrics
from service.jobs.durable.wishes import wishes
from service.jobs.inputs.bounds import UploadBounds
from service.jobs.inputs.counted import counting
from service.jobs.inputs.files import FileInputs
from service.jobs.inputs.of_jobs import JobInputs
from service.jobs.results.files import FileResults
from service.jobs.service import JobService
from service.jobs.store.sqlite import SqliteStore
from service.jobs.store.stored import StoredJob
from service.system.executors import FILES
from service.telemetry.metrics import Metrics
from service.webhooks.delivery import KeysOf, Post, Webhooks
from service.webhooks.targets import Targets

log = structlog.get_logger(__name__)

FILE: Final = "jobs.sqlite"
IMAGES: Final = "results"
INPUTS: Final = "inputs"
SWEEP_SECONDS: Final = 60.0
TOMBSTONE_AGES: Final = 7
"""How many times as long as the images an id is remembered, to say 410 and not 404."""

TOMBSTONES: Final = 100_000
"""Ids that are remembered so at most; some 30 MB."""


def targets(config: Config) -> Targets:
    """Return whom webhooks may go to.

    Raises:
        ConfigError: an entry of the setting is no host and no network.

    """
    try:
        return Targets.parse(part.strip() for part in config.webhook_hosts.split(",") if part)
    except ValueError as error:
        raise ConfigError(f"WEBHOOK_HOSTS: {error}") from error


def _common_keys(config: Config) -> tuple[bytes, ...]:
    """Return what is signed with for owners without a secret of their own."""
    try:
        return (webhook_key(config.webhook_secret),) if config.webhook_secret else ()
    except ValueError as error:
        raise ConfigError(f"WEBHOOK_SECRET: {error}") from None


class DurableJobs:
    """Store, images, webhooks and jobs of one service that keeps jobs."""

    def __init__(
        self,
        config: Config,
        dispatcher: Dispatcher,
        metrics: Metrics,
        allowance: Allowance,
        *,
        encode: Encode,
        describe: Describe,
        post: Post,
        spans: OfSpans,
        keys_of: KeysOf = lambda _owner: (),
    ) -> None:
        folder = Path(config.data_dir)
        self._config = config
        self.store = SqliteStore(folder / FILE, metrics=metrics)
        self.results = FileResults(folder / IMAGES)
        bounds = UploadBounds.of(config)
        self.inputs = FileInputs(folder / INPUTS, bounds, count=counting(metrics, bounds))
        self._ledger = QuotaLedger(self.store, allowance)
        self._store_metrics = StoreMetrics(self.store, self.results, self.inputs, metrics)
        metrics.results_limit.set(config.results_max_bytes)
        common = _common_keys(config)
        self.webhooks = Webhooks(
            post, self._store_metrics.attempted, keys_of=lambda owner: keys_of(owner) or common
        )
        metrics.webhooks_waiting.set_function(lambda: self.webhooks.waiting)
        inputs = JobInputs(self.inputs)
        writer = ResultWriter(
            self.store,
            self.results,
            inputs,
            metrics,
            encode=encode,
            describe=describe,
            spans=spans,
            on_finished=self.deliver,
            on_removed=self.webhooks.forget,
        )
        self.jobs = JobService(dispatcher, metrics, inputs, spans=spans, writer=writer)

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Take up what an earlier process left, and keep the folder in its bounds."""
        await self.results.open()  # It makes the folder, too.
        await self.inputs.open()
        async with self.store:
            await self._clean()
            await self.store.set_aside()
            unfinished = await self.store.unfinished()
            charges = await self._ledger.open(unfinished)
            await self.jobs.open(unfinished, charges, max_attempts=self._config.max_attempts)
            for stored in await self.store.undelivered():
                self.deliver(stored)
            tasks = [
                asyncio.create_task(self._sweep(), name="sweep"),
                asyncio.create_task(self._store_metrics.run(), name="figures"),
            ]
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                await self.jobs.close()
                await self._ledger.close()
                await self.webhooks.stop()

    def deliver(self, stored: StoredJob) -> None:
        """Send the webhook of a job that is over, if it has one."""
        if stored.webhook is None:
            return
        body = {
            "id": stored.id,
            "state": stored.state.value,
            "error": {"code": stored.error_code, "detail": stored.error_detail}
            if stored.error_code
            else None,
            "metadata": dict(stored.metadata) if stored.metadata is not None else None,
        }
        attempts = stored.delivery.attempts if stored.delivery else 0
        self.webhooks.deliver(
            stored.id, stored.webhook, body, owner=stored.owner, attempts=attempts
        )

    async def _clean(self) -> None:
        """Remove images of jobs that are gone, or over without images."""
        known = await self.store.with_images() | {*self.jobs.live}
        await self.results.clean(known)
        await self.inputs.clean(known)

    async def _sweep(self) -> None:
        """Forget what is too old or takes too much room, once a minute."""
        while True:
            try:
                await self._sweep_once()
            except ServiceError:
                pass  # The store has said so in the log.
            except Exception:
                # Whatever it is: who sweeps no more fills the disk.
                log.exception("sweep_failed")
            await asyncio.sleep(SWEEP_SECONDS)

    async def _grant(self) -> None:
        """Remove the jobs of keys for which an operator asks that."""
        for path, owner in await FILES.run(lambda: [*wishes(Path(self._config.data_dir))]):
            await self.jobs.remove(owner)
            await FILES.run(path.unlink)

    async def _sweep_once(self) -> None:
        age = self._config.results_max_age_seconds
        gone = await self.store.expire(max_age_seconds=age)
        for job_id in gone:
            await self.results.delete(job_id)
        self._store_metrics.removed("age")
        sizes = await self.inputs.sizes()
        room = await self.results.sweep(age, self._config.results_max_bytes, sizes)
        self._store_metrics.removed("room")
        await self.store.expire(ids=room)
        without = await self.store.expire_without_images(
            max_age_seconds=self._config.jobs_without_images_max_age_seconds,
            most=self._config.jobs_without_images_max,
        )
        await self._clean()
        await self.store.purge(TOMBSTONE_AGES * age, most=TOMBSTONES)
        if gone or room or without:
            log.info("jobs_expired", by_age=len(gone), for_room=len(room), without_images=without)
        await self._grant()  # Last: what it cannot do must not keep the rest.
