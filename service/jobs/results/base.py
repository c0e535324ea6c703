"""Interface of the result store: the images of finished jobs, all of a job's or none of them."""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, Protocol

from service.errors import JobExpired, NotFound, StorageFull
from service.images.encoded import Encoded

JOB_ID: Final = re.compile(r"[0-9a-f]{32}")
"""What ``new_id`` makes, and nothing that means more to a file system."""

KEEP_FREE: Final = 64 * 2**20
"""Bytes that images leave to the job store and the log, which fail worse than an image does."""

GRACE_SECONDS: Final = 60.0
"""Images this young are never removed: a client is about to fetch them."""

RETRY_SECONDS: Final = 30.0


Sizes = Collection[tuple[int, int]]
"""Widths and heights in pixels."""


class ResultStore(Protocol):
    """Keeps images; files in production, memory in tests, an object store later.

    Every method that takes the id of a job raises NotFound for what is no id, and each may
    raise StorageUnavailable.
    """

    removed_bytes: int
    """Of all images that were removed since the start."""
    damaged: int
    """How often an image was asked for and was not what had been written."""

    async def open(self) -> None:
        """Make the store ready, and remove what a crash left half-written."""

    async def write(
        self, job_id: str, images: Sequence[Encoded], metadata: Mapping[str, Any]
    ) -> int:
        """Keep the images of a job, in place of earlier ones of it, and return their bytes.

        When it returns they outlive a power cut.

        Raises:
            StorageFull: there is no room, even for a part of them; nothing is left behind.

        """

    async def read(
        self, job_id: str, index: int = 0, sizes: Sizes = (), *, owner: str = ""
    ) -> Encoded:
        """Return one image of a job, of one of these widths and heights where some are given.

        Where many read at the same time, owners take turns.

        Raises:
            NotFound: the job has fewer images.
            JobExpired: its images are not kept any more.
            ResultDamaged: they are not what was written.

        """

    async def metadata(self, job_id: str) -> Any:
        """Return what was written with the images of a job; raises what ``read`` raises."""

    async def delete(self, job_id: str) -> bool:
        """Remove the images of a job; return whether there were any."""

    async def sweep(
        self, max_age_seconds: float, max_bytes: int, inputs: Mapping[str, int] | None = None
    ) -> list[str]:
        """Remove what is too old, then the oldest of what is too much; return the job ids.

        ``inputs`` are the bytes of the input images of jobs, by their ids: they count, and go
        with the images of their job. Images younger than the grace period stay, whatever there
        is too much of.
        """

    async def clean(self, known: Collection[str]) -> list[str]:
        """Remove images of jobs that nobody knows; return their ids.

        For the start, with the ids of all jobs that may have images. Young ones stay,
        for a job may have ended since those ids were read.
        """

    async def used_bytes(self) -> int:
        """Return what all images take."""

    async def room_bytes(self) -> int:
        """Return the bytes that images may take, less than 0 where some are to be left free."""


def demand_id(job_id: str) -> None:
    """Raise NotFound for what is no id of a job."""
    if not JOB_ID.fullmatch(job_id):
        raise NotFound("There is no job with this id.")


def demand_index(index: int, count: int) -> None:
    """Raise NotFound unless a job with ``count`` images has this one."""
    if not 0 <= index < count:
        raise NotFound(f"The job has {count} images, counted from 0.")


def removed() -> JobExpired:
    """Return what is raised for images that are not kept any more."""
    return JobExpired("The images of the job have expired.")


def full(content: str = "finished images") -> StorageFull:
    """Return what is raised where there is no room for ``content``."""
    return StorageFull(
        f"There is no room left for {content}. The operator can make room on the disk,"
        " or let images be kept for less time or in fewer bytes.",
        retry_after=RETRY_SECONDS,
    )
