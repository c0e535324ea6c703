"""Where the service may listen."""

import errno
import os
import socket

import pytest
from structlog.testing import capture_logs

from service.cli.serving import binding
from service.config import loading
from service.config.addresses import Networks, client_address, group
from service.errors import ConfigError, PortTaken

KEY = {"API_KEYS": "alice:5f0c2f8e9f1b4b7f8d3a61c9e2b7d405"}
TOKEN = {"METRICS_TOKEN": "2b7d4055f0c2f8e9f1b4b7f8d3a61c9e"}
EVERYWHERE = {"API_HOST": "0.0.0.0"}  # noqa: S104 - what is refused here


def said(environment: dict[str, str]) -> list[tuple[str, str]]:
    with capture_logs() as lines:
        binding.check(loading.load(environment))
    return [(line["log_level"], line["event"]) for line in lines]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "gpu.lan"])  # noqa: S104 - refused
def test_a_public_address_without_keys_is_refused(host):
    """The error names the ways out."""
    with pytest.raises(ConfigError) as caught:
        binding.check(loading.load({"API_HOST": host}))
    ways = ("API_KEYS", "ALLOW_UNAUTHENTICATED=true", "ALLOWED_HOSTS", "127.0.0.1")
    for words in (f"API_HOST={host}", *ways):
        assert words in caught.value.detail


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_a_loopback_address_needs_no_keys(host):
    """Nothing is said about it either."""
    assert said({"API_HOST": host}) == []


def test_who_insists_is_warned():
    """A service that everybody may use says so at its start."""
    assert said({**EVERYWHERE, "ALLOW_UNAUTHENTICATED": "true"}) == [
        ("warning", "service_open_to_everybody")
    ]


def test_who_insists_is_told_of_the_names_to_be_called_by():
    """Without them every web page reaches the service by a name of its own."""
    insists = {**EVERYWHERE, "ALLOW_UNAUTHENTICATED": "true"}
    cures = []
    for more in ({}, {"ALLOWED_HOSTS": "gpu.lan"}):
        with capture_logs() as lines:
            binding.check(loading.load({**insists, **more}))
        cures += [line["cure"] for line in lines]
    assert ["ALLOWED_HOSTS" in cure for cure in cures] == [True, False]


def test_keys_open_every_address():
    """Metrics without a token are worth a warning: they name the keys."""
    assert said({**EVERYWHERE, **KEY}) == [("warning", "metrics_open_to_everybody")]
    assert said({**EVERYWHERE, "API_KEYS_FILE": "keys", **TOKEN}) == []


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")


def listening(host: str, port: int = 0) -> socket.socket:
    return binding.listen(loading.load({"API_HOST": host, "API_PORT": str(port)}))


def reached(host: str, door: socket.socket) -> str:
    """Connect to a door; return who asked, as the door sees it."""
    with socket.create_connection((host, door.getsockname()[1])) as client:
        visitor, address = door.accept()
        visitor.close()
        assert client.getpeername()[1] == door.getsockname()[1]
        return str(address[0])


@needs_ipv6
@pytest.mark.parametrize("host", ["::", "0::0", "0:0:0:0:0:0:0:0"])
def test_the_address_for_all_of_ipv6_takes_ipv4_too(host):
    """However it is written; a client of IPv4 is one in every limit and log line."""
    with listening(host) as door:
        assert reached("::1", door) == "::1"
        seen = reached("127.0.0.1", door)
    assert seen == "::ffff:127.0.0.1"
    assert client_address(seen, [], Networks()) == "127.0.0.1"
    assert client_address(seen, ["192.0.2.7"], Networks("127.0.0.0/8")) == "192.0.2.7"
    assert group(seen) == "127.0.0.1"


@needs_ipv6
def test_another_address_of_ipv6_is_one_of_ipv6_only():
    """And one of IPv4 in the form of IPv6 is one of IPv4."""
    with listening("::1") as door:
        assert reached("::1", door) == "::1"
        with pytest.raises(ConnectionRefusedError):
            reached("127.0.0.1", door)
    with listening("::ffff:127.0.0.1") as door:
        assert reached("127.0.0.1", door) == "127.0.0.1"


@needs_ipv6
@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.1"])  # noqa: S104 - what is taken
def test_a_port_that_another_has_on_ipv4_is_taken_for_both(host):
    """Else half of the clients would reach another program."""
    with listening(host) as door, pytest.raises(PortTaken, match="set API_PORT to a free port"):
        listening("::", door.getsockname()[1])


def test_a_machine_without_ipv6_is_told_the_way_out(monkeypatch):
    """A container often is one."""

    def refuse(*_: object, **__: object) -> socket.socket:
        raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))

    monkeypatch.setattr(socket, "create_server", refuse)
    with pytest.raises(ConfigError) as caught:
        listening("::")
    assert "this machine has no IPv6, and 0.0.0.0 is every address of IPv4" in caught.value.detail


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        *(("0.0.0.0", "127.0.0.1"), ("::", "127.0.0.1"), ("0::0", "127.0.0.1")),  # noqa: S104
        *(("::1", "::1"), ("192.168.1.5", "192.168.1.5"), ("gpu.lan", "gpu.lan")),
    ],
)
def test_a_service_is_asked_where_it_listens(host, expected):
    """Health checks go by IPv4 where every address will do."""
    assert binding.near(host) == expected
