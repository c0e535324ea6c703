"""Host names of webhooks, looked up on threads of their own."""

import socket
from functools import partial
from typing import Final

from aiohttp.abc import AbstractResolver, ResolveResult

from service.errors import Overloaded
from service.system.executors import NAMES

LOOKUP_SECONDS: Final = 4.0
"""For one name, its wait for a thread included; less than a connection may take."""


class LookupUnfinished(OSError):
    """A name server did not answer in time, or too many names of the owner wait."""


class Lookups(AbstractResolver):
    """Asks the system's resolver, which can block a thread for as long as it likes.

    Each owner (an API key) holds a few of the threads at most, and each name fewer: names that
    no server answers for delay those of their own owner only.
    """

    def __init__(self, owner: str) -> None:
        self._owner = owner

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses of a name.

        Raises:
            OSError: it has none, or they are not known in time.

        """
        look_up = partial(
            socket.getaddrinfo,
            host,
            port,
            family=family,
            type=socket.SOCK_STREAM,
            flags=socket.AI_ADDRCONFIG,
        )
        try:
            found = await NAMES.run_for(self._owner, look_up, group=host, seconds=LOOKUP_SECONDS)
        except (TimeoutError, Overloaded) as error:
            raise LookupUnfinished(str(error)) from error
        return [
            ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=port,
                family=found_family,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for found_family, _, protocol, _, address in found
        ]

    async def close(self) -> None:
        """Hold nothing."""
