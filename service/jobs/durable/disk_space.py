"""Disk space for the images of a job, checked before it is accepted."""

import math
from collections.abc import Collection
from typing import Final

from service.core.spec import TEXTS, GenerationSpec
from service.errors import StorageFull, StorageUnavailable
from service.jobs.durable.live_job import LiveJob
from service.jobs.durable.result_writer import ResultWriter
from service.jobs.job import Job
from service.jobs.results.base import KEEP_FREE, RETRY_SECONDS
from service.telemetry.metrics import Metrics

CHANNELS: Final = 3
OTHER_BYTES: Final = 8 * 2**10
"""Of each image and of the job next to pixels and prompts."""

CHAR_BYTES: Final = 20
"""Of each character of the prompts, as text and as JSON, in each image and with the job."""

MIB: Final = 2**20


def need(request: GenerationSpec) -> int:
    """Return the bytes that a job takes on the disk at most: noise does not get any smaller."""
    raw = math.prod(request.output_size) * request.num_images * CHANNELS
    other = OTHER_BYTES + CHAR_BYTES * sum(len(getattr(request, name)) for name in TEXTS)
    return raw + raw // 50 + (request.num_images + 1) * other


async def demand(
    job: Job, writer: ResultWriter, live: Collection[LiveJob], metrics: Metrics
) -> None:
    """Refuse a job whose images cannot be kept; enter it in ``live`` at once after this.

    What the durable jobs of ``live`` still have to write is theirs.

    Raises:
        StorageFull: with what is missing.
        StorageUnavailable: the folder cannot be asked.

    """
    try:
        free = await writer.results.room_bytes()
    except StorageUnavailable:
        await writer.store.check()  # Where the whole folder is gone the store says so.
        raise
    promised = sum(need(each.job.request) for each in live if each.durable)
    wanted = need(job.request)
    if promised + wanted <= free:
        return
    metrics.refused.labels(job.api, "storage_full").inc()
    raise StorageFull(
        f"The images of this job may take {wanted / MIB:.1f} MiB, and the disk has room for"
        f" {max(0, free - promised) / MIB:.1f} MiB next to accepted jobs"
        f" ({KEEP_FREE // MIB} MiB stay free)."
        " The operator can make room on the disk, or let images be kept for less time or in"
        " fewer bytes.",
        retry_after=RETRY_SECONDS,
    )
