"""Who gets a connection, and who takes answers too slowly to keep one."""

import asyncio
import json
import math
import uuid
from typing import Final, Protocol

from service.errors import ServiceError
from service.http.problems import MEDIA_TYPE, problem_body

SLOWEST_BYTES_PER_SECOND: Final = 1024
"""A picture of 1 MB then takes 17 minutes; the slowest telephone does better."""


class Visitor(Protocol):
    """What holds a connection."""

    @property
    def idle(self) -> bool:
        """Whether no request is in work on it."""

    def force_close(self) -> None:
        """Close it now."""


class Doorman:
    """Knows the open connections, the oldest first, and lets in so many at a time.

    When all places are taken, the oldest connection without a request in work makes room:
    that is what somebody who hoards connections has most of. Where all are at work, the new
    one is refused.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._inside: dict[Visitor, None] = {}

    def __len__(self) -> int:
        return len(self._inside)

    def enter(self, visitor: Visitor) -> bool:
        """Return whether there is a place for ``visitor``."""
        if len(self._inside) >= self._most:
            idle = next((other for other in self._inside if other.idle), None)
            if idle is None:
                return False
            self.leave(idle)  # Its transport may take a moment longer.
            idle.force_close()
        self._inside[visitor] = None
        return True

    def leave(self, visitor: Visitor) -> None:
        """Free a place; it does not matter whether the visitor had one."""
        self._inside.pop(visitor, None)


class Pace:
    """Cuts off a client that takes less of its answer than a little in every while."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, transport: asyncio.WriteTransport) -> None:
        """Begin to look at how much is still to be sent."""
        self.stop()
        self._again(transport)

    def stop(self) -> None:
        """End looking."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _again(self, transport: asyncio.WriteTransport) -> None:
        self._timer = asyncio.get_running_loop().call_later(
            self._seconds, self._look, transport, transport.get_write_buffer_size()
        )

    def _look(self, transport: asyncio.WriteTransport, before: int) -> None:
        taken = before - transport.get_write_buffer_size()
        if taken < SLOWEST_BYTES_PER_SECOND * self._seconds:
            self._timer = None
            transport.abort()
        else:
            self._again(transport)


def unread(error: ServiceError) -> bytes:
    """Return a whole answer for a connection on which nothing was read."""
    request_id = uuid.uuid4().hex
    body = json.dumps(problem_body(error, instance="/", request_id=request_id))
    lines = (
        f"HTTP/1.1 {error.status} Service Unavailable",
        f"Content-Type: {MEDIA_TYPE}",
        f"Content-Length: {len(body)}",
        f"X-Request-ID: {request_id}",
        f"Retry-After: {math.ceil(error.retry_after or 1)}",
        *("Server: sd-api", "Cache-Control: no-store", "Connection: close"),
    )
    return "\r\n".join((*lines, "", body)).encode("ascii")
