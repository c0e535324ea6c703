"""Jobs that cannot be kept, and webhooks that nobody takes."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing

from scripts.drill.scene import Scene, fault
from service.jobs.durable import FILE


@fault("SDJobStoreFailing", "Job store locked by another program")
@asynccontextmanager
async def store_locked(scene: Scene) -> AsyncIterator[None]:
    """Hold the right to write, as a shell with a transaction left open does."""
    path = scene.service.folder / "data" / FILE
    async with scene.traffic.jobs():
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("PRAGMA busy_timeout = 10000")
            other.execute("BEGIN IMMEDIATE")
            yield


@fault("SDWebhooksFailing", "Webhooks to a receiver that takes none")
@asynccontextmanager
async def webhooks_refused(scene: Scene) -> AsyncIterator[None]:
    """Name an address that answers 404 to everybody."""
    async with scene.traffic.jobs(webhook=f"{scene.stack.receiver.url}no/such/path"):
        yield
