"""Where the service may send something that a client asked it to send."""

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Self

from yarl import URL

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

LONGEST_URL: Final = 2048
"""Characters."""

NUMBER: Final = re.compile(r"[0-9]+|0[xX][0-9a-fA-F]*")
"""A last label like this makes an address of the whole, for some readers: 127.1, 0x7f000001."""

NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
"""Addresses of the internet of old as a network without it writes them (RFC 6052)."""

UNICAST: Final = ipaddress.IPv6Network("2000::/3")
"""All that was ever given out for the internet."""

SPECIAL: Final[tuple[Network, ...]] = tuple(
    map(
        ipaddress.ip_network,
        (
            "192.0.0.0/24",  # Assignments of the IETF; a cloud keeps its metadata here.
            "192.88.99.0/24",  # Relays from IPv6, given up.
            "168.63.129.16/32",  # A cloud's machines find its platform here.
            "2001::/23",  # Assignments of the IETF, Teredo among them.
            "2001:db8::/32",  # Documentation.
            "3fff::/20",  # Documentation.
        ),
    )
)
"""What is no receiver's address, though some releases of Python call it global."""


@dataclass(frozen=True, kw_only=True)
class Targets:
    """What is allowed beyond https to public addresses.

    A host of ``hosts`` may be spoken to by http, too, and at any address that its name has,
    for the operator has vouched for it. So may an address in ``networks``, whatever its name.
    """

    hosts: frozenset[str] = frozenset()
    networks: tuple[Network, ...] = ()

    @classmethod
    def parse(cls, allowed: Iterable[str]) -> Self:
        """Return the targets that a setting lists: names, addresses, networks like 10.0.0.0/8.

        Raises:
            ValueError: an entry is none of them; it is named.

        """
        hosts, networks = set(), []
        for entry in filter(None, (one.strip() for one in allowed)):
            try:
                networks.append(ipaddress.ip_network(entry.strip("[]")))
                continue
            except ValueError:
                host = _host(entry)
            if host is None:
                raise ValueError(
                    f"{entry!r} is no host name, address or network; write hooks.example.org,"
                    " 10.1.2.3 or 10.0.0.0/8, without scheme, port or path."
                )
            hosts.add(host)
        return cls(hosts=frozenset(hosts), networks=tuple(networks))

    def validate_url(self, url: str) -> None:
        """Refuse what could never be delivered; nothing is looked up.

        Raises:
            ValueError: with what is wrong and what would be right.

        """
        if len(url) > LONGEST_URL:
            raise ValueError(f"Has {len(url)} characters; {LONGEST_URL} are the most.")
        if not url.isascii() or not url.isprintable() or " " in url:
            raise ValueError("Must be ASCII without spaces; write the rest as %XX.")
        try:
            # The client that connects reads it the same way, so that both see one host.
            parsed = URL(url)
            host, port = parsed.raw_host, parsed.port
        except ValueError as error:
            raise ValueError("Is no URL; write https://host/path.") from error
        if parsed.scheme not in ("https", "http") or not host or not port:
            raise ValueError("Must be a whole URL: https://host/path.")
        if parsed.user is not None or parsed.password is not None:
            raise ValueError("Must hold no user or password; put a token into its path or query.")
        self._check_host(parsed.scheme, host)

    def _check_host(self, scheme: str, host: str) -> None:
        literal = _literal(host)
        if literal is None and NUMBER.fullmatch(host.rstrip(".").rpartition(".")[2]):
            raise ValueError(f"{host} is no host name; write an address as four numbers.")
        if self._named(host) or (literal is not None and self._listed(literal)):
            return
        if scheme == "http":
            raise ValueError(
                f"Must begin with https://; http is for hosts that the operator allows, and"
                f" {host} is not one of them."
            )
        local = host.rstrip(".").lower()
        if local == "localhost" or local.endswith(".localhost"):
            raise ValueError(refusal(host))
        if literal is not None and not is_public(literal):
            raise ValueError(refusal(host))

    def admits(self, host: str, address: str) -> bool:
        """Return whether ``address``, which ``host`` stands for now, may be connected to.

        To be asked about the very address of a connection, every time: what a name stood
        for when its URL was checked says nothing about what it stands for later.
        """
        literal = _literal(address)
        if literal is None:
            return False
        return self._named(host) or self._listed(literal) or is_public(literal)

    def _named(self, host: str) -> bool:
        return host.rstrip(".").lower() in self.hosts

    def _listed(self, address: Address) -> bool:
        inner = embedded(address)
        return any(one in network for network in self.networks for one in (address, inner))


def refusal(host: str) -> str:
    """Say why an address is refused, without telling what address a name has inside."""
    return (
        f"{host} is no public address; the operator can allow private hosts and networks by name."
    )


def is_public(address: Address) -> bool:
    """Return whether everybody on the internet can reach the address, so that we may."""
    if (inner := embedded(address)) != address:
        return is_public(inner)
    if isinstance(address, ipaddress.IPv6Address) and address not in UNICAST:
        return False
    if any(address in network for network in SPECIAL):
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def embedded(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 address leads to, where it is of such a kind."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address in NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    if address.sixtofour is not None:
        return address.sixtofour
    return address


def _literal(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _host(entry: str) -> str | None:
    """Return a host name as it is compared, None where it is none."""
    try:
        host = URL.build(scheme="https", host=entry).raw_host
    except ValueError:
        return None
    if not host or "*" in host or any(mark in entry for mark in "/:@?#[] "):
        return None
    return host.rstrip(".").lower()
