"""Input images of jobs: kept with them, read for the engine, and under repainted parts."""

import asyncio
import hashlib
from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import structlog

from service.core.events import JobFinished
from service.core.inputs import EngineInputs, InputImage, InputSource
from service.errors import ServiceError, ValidationFailed
from service.images.inputs import prepared
from service.images.paste import pasting
from service.jobs.inputs.base import IMAGE, MASK, InputStore, Upload
from service.jobs.inputs.files import lost
from service.jobs.job import Job

log = structlog.get_logger(__name__)


class JobInputs:
    """Keeps the uploads of jobs in a store, which may be none for jobs without any."""

    def __init__(self, store: InputStore) -> None:
        self.store = store
        self._tasks: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Wait until everything is removed that nobody needs."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def keep(self, job: Job, uploads: Mapping[str, Upload], *, durable: bool) -> None:
        """Keep the images of a job; raises what ``InputStore.keep`` raises."""
        if uploads:
            await self.store.keep(job.id, uploads, durable=durable)

    def drop(self, job: Job) -> None:
        """Remove the images of a job in the background."""
        if job.request.image is not None:
            task = asyncio.get_running_loop().create_task(self._remove(job.id))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _remove(self, job_id: str) -> None:
        try:
            await self.store.delete(job_id)
        except ServiceError:
            log.warning("input_not_removed", job_id=job_id)

    def source(self, job: Job) -> InputSource | None:
        """Return what reads and prepares the images of a job for the engine, which blocks.

        It raises InputLost or StorageUnavailable where they cannot be read, and
        ValidationFailed where they cannot be decoded.
        """
        return None if job.request.image is None else partial(self._prepared, job)

    def _prepared(self, job: Job) -> EngineInputs:
        image, mask = self._read(job)
        try:
            return prepared(image, mask, job.request)
        except ValueError as error:
            raise _undecodable(error) from error

    def pasted(self, job: Job, result: JobFinished) -> JobFinished:
        """Return what was drawn of a part of an image, put back into the whole; it blocks.

        Raises what ``source`` says.
        """
        if not job.request.masked:
            return result
        image, mask = self._read(job)
        try:
            put_back = pasting(image, mask, job.request)
        except ValueError as error:
            raise _undecodable(error) from error
        return replace(result, images=tuple(map(put_back, result.images)))

    def _read(self, job: Job) -> tuple[bytes, bytes]:
        """Return the bytes of the image and of the mask, empty for none."""
        request = job.request
        return self._bytes(job, IMAGE, request.image), self._bytes(job, MASK, request.mask)

    def _bytes(self, job: Job, name: str, image: InputImage | None) -> bytes:
        if image is None:
            return b""
        data = self.store.read(job.id, name)
        if hashlib.sha256(data).hexdigest() != image.digest:
            log.error("input_damaged", job_id=job.id, name=name)
            raise lost(name)
        return data


def _undecodable(error: ValueError) -> ValidationFailed:
    return ValidationFailed({IMAGE: [str(error)]})
