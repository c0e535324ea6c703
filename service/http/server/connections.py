"""Limits on open connections, and on clients that read their answers too slowly."""

import asyncio
from collections import Counter
from collections.abc import Collection
from typing import Final, Protocol

from service.config.addresses import Networks, address, group
from service.config.table import Config
from service.errors import ServiceError, TooManyConnections, TooManyFromAddress
from service.http.server.shares import Shares

SLOWEST_BYTES_PER_SECOND: Final = 1024
"""An image of 1 MB then takes 17 minutes."""

PROBES: Final = 16
"""Places for probes and metrics, beyond MAX_CONNECTIONS."""

PROBE_SECONDS: Final = 1.0
"""How long a connection beyond the limit may take to say that it is a probe."""


class Closable(Protocol):
    """A connection that can be closed."""

    @property
    def idle(self) -> bool:
        """Whether no request is in work on it."""

    def force_close(self) -> None:
        """Close it now."""


class ConnectionLimiter:
    """Open connections, the oldest first, up to a limit for all and a lower one for each client.

    At the limit, the oldest connection without a request in work is closed for a new one: a
    client that hoards connections has most of these. Where all are at work, the new one is
    refused, unless it is a probe: some places beyond the limit are kept for probes, or a
    supervisor would take a busy service for a dead one.

    A trusted proxy has connections for all of its clients. There each request counts, for the
    client that the proxy names.
    """

    def __init__(self, config: Config) -> None:
        self._most = config.max_connections
        self._trusted: Networks = config.trusted_proxies
        self._shares = Shares(config.connections_per_address)
        self._open: dict[Closable, str] = {}
        self._probing: dict[Closable, str] = {}

    def __len__(self) -> int:
        return len(self._open)

    def proxied(self, peer: str) -> bool:
        """Return whether ``peer`` is a trusted proxy, which names the client of each request."""
        found = address(peer)
        return found is not None and found in self._trusted

    def admit(self, connection: Closable, peer: str) -> ServiceError | None:
        """Take a place for ``connection``; return the error where there is none."""
        client = "" if self.proxied(peer) else group(peer)
        full = len(self._open) >= self._most
        if full and not any(other.idle for other in self._open):
            return TooManyConnections(
                f"{self._most} connections are open (MAX_CONNECTIONS).", retry_after=1
            )
        if client and not self._shares.take(client):
            if not self._closed_idle(client):
                return self.too_many()
            self._shares.take(client)
        elif full:
            self._closed_idle()
        self._open[connection] = client
        return None

    def admit_probe(self, connection: Closable, peer: str) -> bool:
        """Take one of the places for probes; return False where all of those are at work, too.

        The client with most of them loses one first: no client can take them all.
        """
        if len(self._probing) >= PROBES:
            ((largest, _),) = Counter(self._probing.values()).most_common(1)
            theirs = (other for other, client in self._probing.items() if client == largest)
            if not self._closed(next((other for other in theirs if other.idle), None)):
                return False
        self._probing[connection] = group(peer)
        return True

    def release(self, connection: Closable) -> None:
        """Free the place of ``connection``, if it has one."""
        self._probing.pop(connection, None)
        if client := self._open.pop(connection, ""):
            self._shares.give_back(client)

    @property
    def open(self) -> Collection[Closable]:
        """The connections that have a place, the oldest first."""
        return self._open.keys()

    @property
    def requests(self) -> Shares:
        """Connections of each client; a request through a proxy counts like a connection."""
        return self._shares

    def too_many(self) -> TooManyFromAddress:
        """Return the error of a client at its limit."""
        return TooManyFromAddress(
            f"{self._shares.most} connections from this address are open "
            "(MAX_CONNECTIONS_PER_ADDRESS; behind a proxy set TRUSTED_PROXIES).",
            retry_after=1,
        )

    def _closed_idle(self, client: str = "") -> bool:
        theirs = (other for other, whose in self._open.items() if not client or whose == client)
        return self._closed(next((other for other in theirs if other.idle), None))

    def _closed(self, connection: Closable | None) -> bool:
        if connection is None:
            return False
        self.release(connection)  # Its transport may take a moment longer.
        connection.force_close()
        return True


class WriteRateGuard:
    """Closes the connection of a client that reads its answer too slowly."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._timer: asyncio.TimerHandle | None = None
        self._behind = False
        self._written = 0

    def wrote(self, size: int) -> None:
        """Count bytes that were given to the transport."""
        self._written += size

    def watch(self, transport: asyncio.WriteTransport) -> None:
        """Begin to measure how much is still to be sent."""
        self._behind = True
        if self._timer is None:
            self._again(transport)

    def caught_up(self) -> None:
        """Note that more may be written; falling behind again soon does not restart the time."""
        self._behind = False

    def stop(self) -> None:
        """Stop measuring."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _again(self, transport: asyncio.WriteTransport) -> None:
        sent = self._written - transport.get_write_buffer_size()
        self._timer = asyncio.get_running_loop().call_later(
            self._seconds, self._look, transport, sent
        )

    def _look(self, transport: asyncio.WriteTransport, before: int) -> None:
        self._timer = None
        if not self._behind:
            return
        taken = self._written - transport.get_write_buffer_size() - before
        if taken < SLOWEST_BYTES_PER_SECOND * self._seconds:
            transport.abort()
        else:
            self._again(transport)
