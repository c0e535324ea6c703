"""Removing all jobs of an API key while no service runs; see ``wishes`` for one that does."""

from pathlib import Path
from typing import Final

from service.config.table import Config
from service.jobs.durable import wiring
from service.jobs.inputs.bounds import UploadBounds
from service.jobs.inputs.files import FileInputs
from service.jobs.results.files import FileResults
from service.jobs.store.sqlite import SqliteStore

BUSY_SECONDS: Final = 1.0


async def purge(config: Config, owner: str) -> int:
    """Remove all jobs of a key, those that wait for a restart included; return how many.

    Raises:
        StoreInUse: a service is running; leave it a ``wish``.
        StoreError, StorageUnavailable: DATA_DIR cannot be used.

    """
    folder = Path(config.data_dir)
    results = FileResults(folder / wiring.IMAGES)
    inputs = FileInputs(folder / wiring.INPUTS, UploadBounds.of(config))
    async with SqliteStore(folder / wiring.FILE, busy_seconds=BUSY_SECONDS) as store:
        gone = await store.remove(owner, unfinished=True)
        for job_id in gone:
            await results.delete(job_id)
            await inputs.delete(job_id)
    return len(gone)
