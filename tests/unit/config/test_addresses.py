"""Addresses in settings and requests."""

import pickle

import pytest

from service.config.addresses import (
    Hosts,
    Networks,
    Origins,
    client_address,
    group,
    host_name,
    is_loopback,
)

PROXIES = Networks("10.0.0.1, 192.168.0.0/24, fd00::/8")


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("localhost", True),
        ("LOCALHOST.", True),
        ("0.0.0.0", False),  # noqa: S104 - all addresses is what it must tell apart
        ("::", False),
        ("", False),
        ("192.168.0.2", False),
        ("localhost.example", False),
        ("127.0.0.1.example", False),
    ],
)
def test_loopback_is_what_no_other_machine_reaches(host, expected):
    """A name that only a resolver knows may lead anywhere."""
    assert is_loopback(host) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("gpu.lan", "gpu.lan"),
        ("gpu.lan:8000", "gpu.lan"),
        ("127.0.0.1:80", "127.0.0.1"),
        ("[::1]:8000", "::1"),
        ("[::1]", "::1"),
        ("[0:0::1]:1", "::1"),
        ("GPU.lan.:65535", "gpu.lan"),
        ("sd_api-1", "sd_api-1"),
        ("1.gpu", "1.gpu"),
    ],
)
def test_a_host_is_told_from_its_port(text, expected):
    """With and without brackets, in the spelling that hosts are compared in."""
    assert host_name(text) == expected


@pytest.mark.parametrize("text", ["", "::1", "a:b", "a:0", "a:65536", "u@a", "127.1", "[a]"])
def test_what_is_no_host_raises(text):
    """The service refuses it; tests/unit/http/middleware/test_hosts.py has them all."""
    with pytest.raises(ValueError, match=r"."):
        host_name(text)


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("203.0.113.9", ["198.51.100.1"], "203.0.113.9"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["6.6.6.6, 198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["6.6.6.6", "198.51.100.1, 192.168.0.7"], "198.51.100.1"),
        ("10.0.0.1", ["198.51.100.1, rubbish"], "10.0.0.1"),
        ("fd00::2", ["2001:db8::1"], "2001:db8::1"),
        ("10.0.0.1", ["6.6.6.6, 198.51.100.1:1234"], "198.51.100.1"),
        ("10.0.0.1", ["198.51.100.1:1234, 192.168.0.7:65535"], "198.51.100.1"),
        ("10.0.0.1", ["[2001:db8::1]"], "2001:db8::1"),
        ("10.0.0.1", ["6.6.6.6", "[2001:db8::1]:443 , [fd00::3]:1"], "2001:db8::1"),
        ("10.0.0.1", ["[::ffff:198.51.100.1]:443"], "198.51.100.1"),
        ("10.0.0.1", ["2001:db8::1:443"], "2001:db8::1:443"),
        *(
            ("10.0.0.1", ["198.51.100.1", rubbish], "10.0.0.1")
            for rubbish in (
                *("", "unknown", "198.51.100:80", "198.51.100.1:", "198.51.100.1:x"),
                *("198.51.100.1:65536", "198.51.100.1:\u0668", "198.51.100.1:80:80"),
                *("[198.51.100.1]:80", "[2001:db8::1", "[2001:db8::1]443", "[2001:db8::1]:"),
                *("[[2001:db8::1]]", "[gpu:lan]", "[]", "proxy.lan:80", '"198.51.100.1"'),
            )
        ),
        ("::ffff:10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("", ["198.51.100.1"], ""),
    ],
)
def test_only_a_trusted_proxy_says_who_asks(peer, forwarded, expected):
    """Read from the end: what a client wrote itself stands before what proxies saw."""
    assert client_address(peer, forwarded, PROXIES) == expected


def test_without_trusted_proxies_nobody_is_believed():
    """The peer is who it is."""
    assert client_address("10.0.0.1", ["1.2.3.4"], Networks()) == "10.0.0.1"


@pytest.mark.parametrize(
    ("client", "expected"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
    ],
)
def test_an_ipv6_client_is_its_network(client, expected):
    """It has 2**64 addresses to ask from."""
    assert group(client) == expected


def test_lists_are_read_as_they_are_compared():
    """Small letters, no default port, no spaces."""
    assert Hosts("GPU.lan:8000, [fd00::1]") == ("gpu.lan", "fd00::1")
    assert Origins("HTTPS://Images.example:443, http://localhost:3000,*") == (
        "https://images.example",
        "http://localhost:3000",
        "*",
    )
    assert [str(network) for network in PROXIES] == ["10.0.0.1/32", "192.168.0.0/24", "fd00::/8"]
    assert Origins(" , ") == ()


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (Hosts, "gpu lan"),
        (Hosts, "http://gpu.lan"),
        (Hosts, "*"),
        (Origins, "images.example"),
        (Origins, "https://images.example/"),
        (Origins, "https://*.example"),
        (Origins, "null"),
        (Networks, "proxy.lan"),
        (Networks, "10.0.0.1/8"),
    ],
)
def test_a_part_that_is_none_is_an_error(kind, text):
    """With an example of what is meant."""
    with pytest.raises(ValueError, match="comma-separated"):
        kind(text)


@pytest.mark.parametrize("made", [Hosts("gpu.lan"), Origins("http://a:3000"), PROXIES])
def test_lists_travel_to_other_processes(made):
    """The engine's process gets the settings, too."""
    assert pickle.loads(pickle.dumps(made)) == made  # noqa: S301 - our own bytes
