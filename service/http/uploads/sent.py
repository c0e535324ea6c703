"""Images within a body, and what a request holds of the input store until it is over."""

import threading
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler

from service.http.uploads.base64_text import decoded
from service.jobs.inputs.base import Upload

PIECE: Final = 2**20
"""Bytes that are copied at a time."""


@dataclass(frozen=True, kw_only=True)
class Sent:
    """A part of a body that may be an image; its bytes are read when they are wanted."""

    read: Callable[[], bytes]
    """Reads the whole body, which blocks."""
    start: int
    end: int
    base64: bool
    """Whether it is a text in JSON, else the image itself."""

    def pieces(self) -> Iterator[bytes]:
        """Yield the bytes of the image; it blocks.

        Raises:
            ValueError: it is no base64.

        """
        part = memoryview(self.read())[self.start : self.end]
        if self.base64:
            yield from decoded(part)
            return
        for start in range(0, len(part), PIECE):
            yield bytes(part[start : start + PIECE])


class Held:
    """Uploads of a request that are discarded when it is over; from any thread."""

    def __init__(self) -> None:
        self._uploads: list[Upload] = []
        self._lock = threading.Lock()
        self._closed = False

    def add(self, upload: Upload) -> Upload:
        """Hold one more; what arrives too late is discarded at once."""
        with self._lock:
            if not self._closed:
                self._uploads.append(upload)
                return upload
        upload.discard()
        return upload

    def keep_only(self, uploads: Collection[Upload]) -> None:
        """Discard all others now: a request may wait long for its images."""
        with self._lock:
            over = [each for each in self._uploads if each not in uploads]
            self._uploads = [each for each in self._uploads if each in uploads]
        for upload in over:
            upload.discard()

    def close(self) -> None:
        """Discard what is held, and what comes later."""
        with self._lock:
            self._closed = True
        for upload in self._uploads:
            upload.discard()


HELD: Final = web.RequestKey("held", Held)


@web.middleware
async def uploads(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Discard what a request brought, when it is over; what a job keeps stays."""
    request[HELD] = held = Held()
    try:
        return await handler(request)
    finally:
        held.close()
