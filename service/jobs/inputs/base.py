"""Interface of the input store: the images that requests bring, while their jobs need them."""

import threading
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from typing import Final, Protocol, Self

IMAGE: Final = "image"
MASK: Final = "mask"
NAMES: Final = (IMAGE, MASK)
"""Images that one job can bring."""


class Upload(ABC):
    """One image as its client sent it, which no job has yet.

    ``digest`` is the SHA-256 of its bytes in hexadecimal, ``size`` their number. Whoever
    received it discards it when the request is over; a job that keeps it takes it over.
    """

    def __init__(self, digest: str, size: int) -> None:
        self.digest, self.size = digest, size
        self._lock = threading.Lock()
        self._claims = 0
        self._over = self._gone = False

    @abstractmethod
    def read(self) -> bytes:
        """Return the bytes; it blocks. Raises StorageUnavailable."""

    def discard(self) -> None:
        """Remove it, unless a job keeps it, from any thread and without blocking.

        While it is claimed it stays until the claims are over.
        """
        with self._lock:
            self._over = True
        self._settle()

    def claim(self) -> None:
        """Keep it until ``release``, though it is discarded: a job is being accepted with it."""
        with self._lock:
            self._claims += 1

    def release(self) -> None:
        """End a claim."""
        with self._lock:
            self._claims -= 1
        self._settle()

    def _settle(self) -> None:
        with self._lock:
            if self._gone or self._claims or not self._over:
                return
            self._gone = True
        self._remove()

    @abstractmethod
    def _remove(self) -> None:
        """Remove it without blocking; a no-op after ``InputStore.keep``."""


class Receiver(ABC):
    """Bytes on their way in; as a context manager it leaves nothing but what is ``done``."""

    @abstractmethod
    def write(self, data: bytes) -> None:
        """Take more bytes; it blocks.

        Raises:
            TooManyUploads, UploadsFull: as ``InputStore.receive`` does.
            StorageFull, StorageUnavailable: the disk does not take them.

        """

    @abstractmethod
    def done(self) -> Upload:
        """Return what was received, whole; it blocks. Raises what ``write`` raises."""

    @abstractmethod
    def discard(self) -> None:
        """Leave nothing of what was received, from any thread; a no-op after ``done``."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.discard()


class InputStore(Protocol):
    """Keeps input images by the id of their job; files, or memory where nothing is kept.

    Every method that takes the id of a job raises NotFound for what is no id, and each may
    raise StorageUnavailable.
    """

    async def open(self) -> None:
        """Make the store ready, and remove what a crash left half-received."""

    def receive(self, owner: str) -> Receiver:
        """Let an owner send an image, or a body with images.

        Raises:
            TooManyUploads: the owner has too many bytes on their way in.
            UploadsFull: all owners together have.

        """

    async def keep(
        self, job_id: str, uploads: Mapping[str, Upload], *, durable: bool = True
    ) -> None:
        """Keep the images of a job by their names, all of them or none.

        When it returns they outlive a power cut, if they are ``durable``.

        Raises:
            StorageFull: there is no room.

        """

    def read(self, job_id: str, name: str) -> bytes:
        """Return the bytes of an image as they were sent; it blocks.

        Raises:
            InputLost: the job has no such image, or not any more.

        """

    async def delete(self, job_id: str) -> bool:
        """Remove the images of a job; return whether there were any."""

    async def clean(self, known: Collection[str]) -> list[str]:
        """Remove images of jobs that nobody knows; return their ids.

        ``known`` are the ids of all jobs that may have images. Young ones stay, for a job may
        have been accepted since those ids were read.
        """

    async def sizes(self) -> Mapping[str, int]:
        """Return the bytes of the images of each job, by its id."""

    @property
    def receiving_bytes(self) -> int:
        """Bytes that no job keeps: what is on its way in, and what was received."""
