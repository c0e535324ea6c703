"""The parts behind durable jobs, put together, opened and closed in their order."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import structlog

from service.config import Config
from service.errors import ConfigError, ServiceError
from service.jobs.allowance import Allowance
from service.jobs.book import Book
from service.jobs.consumer import Consumer
from service.jobs.endings import Describe, Encode, Endings, OfSpans
from service.jobs.figures import Figures
from service.jobs.results import Results
from service.jobs.store import JobStore
from service.jobs.stored import StoredJob
from service.jobs.targets import Targets
from service.jobs.usage import Usage
from service.jobs.webhook import Post, Webhooks
from service.telemetry.metrics import Metrics

log = structlog.get_logger(__name__)

FILE: Final = "jobs.sqlite"
PICTURES: Final = "results"
SWEEP_SECONDS: Final = 60.0
TOMBSTONE_AGES: Final = 7
"""How many times as long as the pictures an id is remembered, to say 410 and not 404."""


def targets(config: Config) -> Targets:
    """Return whom webhooks may go to.

    Raises:
        ConfigError: an entry of the setting is no host and no network.

    """
    try:
        return Targets.parse(part.strip() for part in config.webhook_hosts.split(",") if part)
    except ValueError as error:
        raise ConfigError(f"WEBHOOK_HOSTS: {error}") from error


class Durable:
    """Store, pictures, book and webhooks of one service."""

    def __init__(
        self,
        config: Config,
        consumer: Consumer,
        metrics: Metrics,
        allowance: Allowance,
        *,
        encode: Encode,
        describe: Describe,
        post: Post,
        spans: OfSpans,
    ) -> None:
        folder = Path(config.data_dir)
        self._config = config
        self.store = JobStore(folder / FILE, metrics=metrics)
        self.results = Results(folder / PICTURES)
        self._usage = Usage(self.store, allowance)
        self._figures = Figures(self.store, self.results, metrics)
        metrics.results_limit.set(config.results_max_bytes)
        secrets = [config.webhook_secret] if config.webhook_secret else []
        try:
            self.webhooks = Webhooks(post, self._figures.attempted, secrets=secrets)
        except ValueError as error:
            raise ConfigError(f"WEBHOOK_SECRET: {error}") from None
        self.book = Book(
            consumer,
            self.store,
            self.results,
            Endings(
                self.store, self.results, metrics, encode=encode, describe=describe, spans=spans
            ),
            told=self.tell,
            max_attempts=config.max_attempts,
        )

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Take up what an earlier process left, and keep the folder in its bounds."""
        await asyncio.to_thread(self.results.open)  # It makes the folder, too.
        async with self.store:
            await asyncio.to_thread(self.results.clean, await self.store.with_pictures())
            unfinished = await self.store.unfinished()
            await self.book.open(unfinished, await self._usage.open(unfinished))
            for stored in await self.store.undelivered():
                self.tell(stored)
            tasks = [
                asyncio.create_task(self._sweep(), name="sweep"),
                asyncio.create_task(self._figures.run(), name="figures"),
            ]
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                await self.book.close()
                await self._usage.close()
                await self.webhooks.stop()

    def tell(self, stored: StoredJob) -> None:
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
        self.webhooks.deliver(stored.id, stored.webhook, body, attempts=attempts)

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

    async def _sweep_once(self) -> None:
        age = self._config.results_max_age_seconds
        gone = await self.store.expire(max_age_seconds=age)
        for job_id in gone:
            await asyncio.to_thread(self.results.delete, job_id)
        self._figures.removed("age")
        room = await asyncio.to_thread(self.results.sweep, age, self._config.results_max_bytes)
        self._figures.removed("room")
        await self.store.expire(ids=room)
        await self.store.purge(TOMBSTONE_AGES * age)
        if gone or room:
            log.info("jobs_expired", by_age=len(gone), for_room=len(room))
