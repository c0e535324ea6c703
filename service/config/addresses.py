"""Addresses in settings and requests: who is near, who is trusted, who asks."""

import ipaddress
import re
from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network
from typing import Any, Final, Self

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

AUTHORITY: Final = re.compile(
    r"(?:\[(?P<v6>[0-9a-f:.]+)\]|(?P<name>[a-z0-9_-]+(?:\.[a-z0-9_-]+)*)\.?)"
    r"(?::(?P<port>[0-9]{1,5}))?",
    re.ASCII,
)
"""What a ``Host`` header is: a name or an address, and a port (RFC 9112, 3.2); no user."""

NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)
"""The last label of what is read as an IPv4 address, or as none (the URL standard, 3.5)."""

WITH_PORT: Final = re.compile(
    r"(?:\[(?P<v6>[^\[\]]*:[^\[\]]*)\]|(?P<v4>[0-9.]+))(?::(?P<port>[0-9]{1,5}))?", re.ASCII
)
"""An address as some gateways forward it; without brackets a colon is a part of IPv6."""

LONGEST_NAME: Final = 253
HIGHEST_PORT: Final = 65_535
ORIGIN: Final = re.compile(r"(https?)://([a-z0-9_.-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?", re.ASCII)
DEFAULT_PORTS: Final = {"http": ":80", "https": ":443"}

IPV6_CLIENT_BITS: Final = 64
"""A household or a server has that many addresses to itself."""


class Listed(tuple[Any, ...]):
    """A setting that lists things between commas."""

    __slots__ = ()

    def __new__(cls, text: str = "") -> Self:
        """Read every part.

        Raises:
            ValueError: says what a part must be.

        """
        parts = (part.strip() for part in text.split(","))
        return super().__new__(cls, (cls.read(part) for part in parts if part))

    def __getnewargs__(self) -> tuple[str]:
        return (str(self),)

    def __str__(self) -> str:
        return ",".join(str(part) for part in self)

    @staticmethod
    def read(part: str) -> object:
        """Return one part, checked."""
        return part


class Hosts(Listed):
    """Names by which a client may call the service, without a port."""

    __slots__ = ()

    @staticmethod
    def read(part: str) -> str:
        """Return a host as it is compared: small letters, no port."""
        try:
            return host_name(f"[{part}]" if part.count(":") > 1 and "[" not in part else part)
        except ValueError:
            raise ValueError(
                "must be comma-separated host names, e.g. gpu.lan,images.example"
            ) from None


class Origins(Listed):
    """Origins of pages (RFC 6454) that may read answers; ``*`` for all."""

    __slots__ = ()

    @staticmethod
    def read(part: str) -> str:
        """Return an origin as browsers write it: small letters, no default port, no path."""
        if part == "*":
            return part
        if not (match := ORIGIN.fullmatch(part.lower())):
            raise ValueError("must be comma-separated origins, e.g. https://images.example, or *")
        return part.lower().removesuffix(DEFAULT_PORTS[match[1]])


class Networks(Listed):
    """Addresses or networks, as in ``10.0.0.1,192.168.0.0/24``."""

    __slots__ = ()

    @staticmethod
    def read(part: str) -> IPv4Network | IPv6Network:
        """Return a network; one address is a small one."""
        try:
            return ipaddress.ip_network(part)
        except ValueError:
            raise ValueError(
                "must be comma-separated addresses or networks, e.g. 10.0.0.1,192.168.0.0/24"
            ) from None

    def __contains__(self, sought: object) -> bool:
        return any(sought in network for network in self)


def address(text: str) -> IpAddress | None:
    """Return the address that ``text`` is; IPv4 written as IPv6 is IPv4."""
    try:
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found


def host_name(text: str) -> str:
    """Return the host of ``host``, ``host:port`` or ``[v6]:port``, as hosts are compared.

    That is in small letters, without brackets and without the dot that may end a name.

    Raises:
        ValueError: it is none of these. Neither is an IPv4 address that is not written as
            four decimal numbers: clients disagree about what 127.1 or 0177.0.0.1 is.

    """
    match = AUTHORITY.fullmatch(text.lower())
    if match is None or not 1 <= int(match["port"] or 1) <= HIGHEST_PORT:
        raise ValueError("no host")
    if match["v6"]:
        return str(ipaddress.IPv6Address(match["v6"]))
    name = match["name"]
    if len(name) > LONGEST_NAME:
        raise ValueError("no host")
    return str(ipaddress.IPv4Address(name)) if NUMBER.fullmatch(name.split(".")[-1]) else name


def is_loopback(host: str) -> bool:
    """Return whether ``host`` only reaches its own machine; unknown names may reach further."""
    found = address(host)
    return host.lower().rstrip(".") == "localhost" or (found is not None and found.is_loopback)


def client_address(peer: str, forwarded: Sequence[str], trusted: Networks) -> str:
    """Return who asks: the peer, or what trusted proxies say of it.

    ``forwarded`` are the values of ``X-Forwarded-For``. A client can write any number of
    addresses there, and each proxy adds the one it sees at the end. So they are read from
    the end, and the first that is no trusted proxy is the client.
    """
    chain = [part.strip() for value in forwarded for part in value.split(",")]
    current = address(peer)
    while chain and current is not None and current in trusted:
        said = _forwarded(chain.pop())
        if said is None:  # A trusted proxy writes addresses; this is somebody's invention.
            break
        current = said
    return peer if current is None else str(current)


def _forwarded(text: str) -> IpAddress | None:
    """Return the address that a proxy wrote, perhaps with a port."""
    match = WITH_PORT.fullmatch(text)
    if match is None:
        return address(text)
    known = int(match["port"] or 0) <= HIGHEST_PORT
    return address(match["v6"] or match["v4"]) if known else None


def group(client: str) -> str:
    """Return what counts as one client: an IPv4 address, or a network of IPv6."""
    found = address(client)
    if isinstance(found, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((found, IPV6_CLIENT_BITS), strict=False))
    return client if found is None else str(found)
