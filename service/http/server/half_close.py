"""Half-closed connections: the client waits for its answer, or is gone.

Both begin with a FIN. They differ when something is written: the system of a client that is gone
answers with RST. So the first bytes of every answer are written ahead, one by one; for a client
that waits nothing changes, and the work for one that is gone ends.
"""

import asyncio
import select
from typing import Final, Protocol

BEGINNING: Final = b"HTTP/1."
"""First bytes of every answer."""

FIRST_SECONDS: Final = 0.01
LONGEST_SECONDS: Final = 1.0
"""Between two checks; the time between them doubles."""


class Answering(Protocol):
    """A connection that answers."""

    @property
    def idle(self) -> bool:
        """Whether it has no request in work."""

    def write_ahead(self) -> None:
        """Write the next byte of ``BEGINNING``, if an answer is awaited that has not begun."""


class HalfCloseCheck:
    """Checks one connection from the moment that its client sends no more."""

    def __init__(self, connection: Answering) -> None:
        self._connection = connection
        self._timer: asyncio.TimerHandle | None = None
        self.begun = asyncio.Event()
        """Set from then on."""

    def begin(self, transport: asyncio.Transport) -> None:
        """Begin to check; another call changes nothing."""
        if not self.begun.is_set():
            self.begun.set()
            self._later(transport, FIRST_SECONDS)

    def stop(self) -> None:
        """Stop checking."""
        if self._timer is not None:
            self._timer.cancel()

    def _later(self, transport: asyncio.Transport, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(seconds, self._check, transport, seconds)

    def _check(self, transport: asyncio.Transport, seconds: float) -> None:
        if self._connection.idle:  # All that it asked for is answered.
            transport.close()
        elif gone(transport):
            transport.abort()
        else:
            self._connection.write_ahead()
            self._later(transport, min(2 * seconds, LONGEST_SECONDS))


def gone(transport: asyncio.Transport) -> bool:
    """Return whether the other side has reset a connection that nobody reads from any more."""
    line = transport.get_extra_info("socket")
    if line is None or line.fileno() < 0:
        return True
    states = select.poll()
    states.register(line.fileno(), 0)  # Errors and the end of both directions are always told.
    return bool(states.poll(0))
