"""Where the service may listen, given who may come in."""

import errno
import socket
from ipaddress import IPv4Address, IPv6Address
from typing import Final

import structlog

from service.config.addresses import address, is_loopback
from service.config.table import Config
from service.errors import ConfigError, PortTaken

log = structlog.get_logger(__name__)

BACKLOG: Final = 1024
"""Connections that wait to be accepted; one more would be tried again by its client after 1 s."""
NO_IPV6: Final = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL})


def check(config: Config) -> None:
    """Refuse to listen where other machines reach it while everybody may come in.

    Raises:
        ConfigError: with the three ways out.

    """
    if is_loopback(config.api_host):
        return
    if not (config.api_keys or config.api_keys_file):
        if not config.allow_unauthenticated:
            raise ConfigError(
                f"API_HOST={config.api_host}: other machines can reach this address, and no API "
                "keys are set. "
                "Set API_KEYS or API_KEYS_FILE, or API_HOST=127.0.0.1. To serve everybody "
                "without keys, set ALLOW_UNAUTHENTICATED=true and ALLOWED_HOSTS to the accepted "
                "Host names."
            )
        cure = "set API_KEYS or API_KEYS_FILE"
        if not config.allowed_hosts:
            cure += (
                "; or at least ALLOWED_HOSTS to the names that it is called by: any web page can "
                "let its own name point here (DNS rebinding)"
            )
        log.warning("service_open_to_everybody", host=config.api_host, cure=cure)
    elif not config.metrics_token:
        log.warning("metrics_open_to_everybody", host=config.api_host, cure="set METRICS_TOKEN")


def listen(config: Config) -> socket.socket:
    """Open the port; ``::`` takes IPv4, too, as in every other program.

    Raises:
        PortTaken: another program has it.
        ConfigError: it cannot be had.

    """
    found = address(config.api_host)
    # An IPv4 address that is written as IPv6 is one of IPv4.
    host = str(found) if isinstance(found, IPv4Address) else config.api_host
    everywhere = isinstance(found, IPv6Address) and found.is_unspecified
    try:
        return socket.create_server(
            (host, config.api_port),
            family=socket.AF_INET6 if isinstance(found, IPv6Address) else socket.AF_INET,
            backlog=BACKLOG,
            dualstack_ipv6=everywhere and socket.has_dualstack_ipv6(),
        )
    except OSError as error:
        where = f"API_HOST={config.api_host}, API_PORT={config.api_port}: cannot listen there "
        if error.errno == errno.EADDRINUSE:
            raise PortTaken(
                f"{where}({error.strerror}); set API_PORT to a free port, or 0 for any."
            ) from error
        cure = "name an address of this machine and a port from 1024 on."
        if everywhere and error.errno in NO_IPV6:
            cure = "this machine has no IPv6, and 0.0.0.0 is every address of IPv4."
        raise ConfigError(f"{where}({error.strerror}); {cure}") from error


def near(host: str) -> str:
    """Return by which address a service that listens on ``host`` is reached from its own machine.

    ``::`` is reached by IPv4, too, and a container may have no loopback address of IPv6.
    """
    found = address(host)
    return "127.0.0.1" if found is not None and found.is_unspecified else host
