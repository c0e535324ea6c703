"""The one way in which the service calls others: a POST to an address that a client named.

Nobody can use it to reach what only the service can reach. The address of every connection is
checked where its socket is made, after the name was looked up and before anything is sent, so
that a name that stands for another address a moment later gains nothing (DNS rebinding).
Nothing is kept between two attempts: no connection, no looked-up name, no cookie. No proxy is
asked, redirects are not followed, and nothing of an answer's body is read.
"""

import asyncio
import email.utils
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import aiohttp
from aiohttp import hdrs
from aiohttp.abc import AbstractResolver
from yarl import URL

from service.webhooks.delivery import Answer, Refused, Unreachable
from service.webhooks.lookups import Lookups, LookupUnfinished
from service.webhooks.targets import Targets, refusal

CONNECT_SECONDS: Final = 5.0
ATTEMPT_SECONDS: Final = 15.0

LONGEST_HEADER: Final = 8190
"""Bytes of an answer's status line and of each of its headers."""

AddressInfo = tuple[int | socket.AddressFamily, int | socket.SocketKind, int, str, tuple[Any, ...]]


class Outbound:
    """Sends a body to a target; an instance is a ``Post`` for ``Webhooks``."""

    def __init__(
        self,
        targets: Targets,
        *,
        user_agent: str = "sd-api",
        connect_seconds: float = CONNECT_SECONDS,
        attempt_seconds: float = ATTEMPT_SECONDS,
        resolver: Callable[[str], AbstractResolver] = Lookups,
        tls: ssl.SSLContext | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._targets = targets
        self._headers = {hdrs.USER_AGENT: user_agent, hdrs.ACCEPT: "*/*"}
        self._timeout = aiohttp.ClientTimeout(
            total=attempt_seconds, connect=connect_seconds, sock_connect=connect_seconds
        )
        self._resolver = resolver
        self._tls = tls or True
        self._now = now

    async def __call__(
        self, url: str, body: bytes, headers: Mapping[str, str], owner: str
    ) -> Answer:
        """Send ``body`` for ``owner``, and return the status of the answer.

        Raises:
            Refused: the URL or the address behind its name is not allowed.
            Unreachable: there was no answer in time, or none that is HTTP.

        """
        try:
            self._targets.validate_url(url)
        except ValueError as error:
            raise Refused(str(error)) from error
        target = URL(url)
        sockets = _Sockets(self._targets, target.raw_host or "")
        try:
            # The client's own limit does not hold for the end of a request.
            async with (
                asyncio.timeout(self._timeout.total),
                self._session(sockets, owner) as session,
            ):
                request = session.post(target, data=body, headers=headers, allow_redirects=False)
                async with request as answer:
                    return Answer(
                        status=answer.status,
                        retry_after=self._seconds(answer.headers.get(hdrs.RETRY_AFTER)),
                    )
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            if sockets.refused and not sockets.opened:
                raise Refused(refusal(sockets.host)) from error
            raise Unreachable(_why(error)) from error

    def _session(self, sockets: "_Sockets", owner: str) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            resolver=self._resolver(owner),
            use_dns_cache=False,
            force_close=True,
            socket_factory=sockets,
            ssl=self._tls,
        )
        return aiohttp.ClientSession(
            connector=connector,
            timeout=self._timeout,
            headers=self._headers,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            max_line_size=LONGEST_HEADER,
            max_field_size=LONGEST_HEADER,
        )

    def _seconds(self, value: str | None) -> float | None:
        """Return the seconds that a Retry-After asks for, None where it says nothing."""
        if value is None:
            return None
        if value.isascii() and value.isdigit():
            return float(value[:9])
        try:
            return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - self._now())
        except (ValueError, OverflowError, OSError):
            return None


class _Sockets:
    """Makes the sockets of one attempt, for addresses that are allowed."""

    def __init__(self, targets: Targets, host: str) -> None:
        self.host = host
        self.refused = False
        self.opened = False
        self._targets = targets

    def __call__(self, info: AddressInfo) -> socket.socket:
        family, kind, protocol, _, address = info
        if not self._targets.admits(self.host, str(address[0])):
            self.refused = True
            raise PermissionError(refusal(self.host))
        self.opened = True
        return socket.socket(family=family, type=kind, proto=protocol)


def _why(error: BaseException) -> str:
    """Say what went wrong in words of our own; those of the error may tell of our network."""
    match error:
        case TimeoutError():
            return "did not answer in time"
        case aiohttp.ClientConnectorDNSError(os_error=cause):
            unfinished = isinstance(cause, LookupUnfinished)
            return "its name was not looked up in time" if unfinished else "its name has no address"
        case aiohttp.ClientSSLError() | ssl.SSLError():
            return "its certificate or its TLS is not valid"
        case aiohttp.ClientConnectorError():
            return "could not be connected to"
        case aiohttp.ServerDisconnectedError():
            return "closed the connection without an answer"
        case _:
            return "did not answer in HTTP"
