"""Where the service may send something that a client asked it to send."""

import ipaddress

import pytest

from service.webhooks.targets import Targets, is_public

NOBODY = Targets()
OPEN = Targets.parse(["hooks.internal", "10.1.0.0/16", "192.168.1.5", "fd00::/8", " Box.Lan. "])


@pytest.mark.parametrize(
    "url",
    [
        "https://example.org",
        "https://example.org:8443/hook?token=1#part",
        "https://sub.example.org/%C3%A4",
        "https://93.184.216.34/hook",
        "https://[2606:4700::1111]/hook",
        "https://xn--mnchen-3ya.de/",
        "HTTPS://Example.org/",
    ],
)
def test_https_to_the_world_is_welcome(url):
    """Names are not looked up here: that would tell nothing about later."""
    NOBODY.validate_url(url)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://example.org/", "begin with https://"),
        ("ftp://example.org/", "whole URL"),
        ("file:///etc/passwd", "whole URL"),
        ("//example.org/", "whole URL"),
        ("example.org/hook", "whole URL"),
        ("https:///hook", "no URL|whole URL"),
        ("https://example.org:0/", "whole URL"),
        ("https://example.org:99999/", "no URL"),
        ("https://[::1", "no URL"),
        ("https://user:secret@example.org/", "no user or password"),
        ("https://example.org@127.0.0.1/", "no user or password"),
        ("https://münchen.de/", "ASCII"),
        ("https://example.org/a b", "ASCII"),
        ("https://example.org/\r\nX-Header: 1", "ASCII"),
        ("https://example.org/" + "a" * 2048, "2048 are the most"),
        ("https://localhost/", "no public address"),
        ("https://LOCALHOST./", "no public address"),
        ("https://api.localhost/", "no public address"),
        ("https://127.0.0.1/", "no public address"),
        ("https://[::1]:8000/", "no public address"),
        ("https://169.254.169.254/latest/meta-data/", "no public address"),
        ("https://2130706433/", "no host name"),
        ("https://127.1/", "no host name"),
        ("https://0x7f.0x0.0.0x1./", "no host name"),
        ("https://0177.0.0.1/", "no host name"),
        ("http://10.0.0.1/", "begin with https://"),
        ("", "whole URL"),
    ],
)
def test_what_can_never_be_delivered_is_refused_at_the_door(url, said):
    """With what would be right."""
    with pytest.raises(ValueError, match=said):
        NOBODY.validate_url(url)


@pytest.mark.parametrize(
    "address",
    [
        *("0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "127.0.0.1", "127.255.255.254"),  # noqa: S104
        *("169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.8", "192.168.0.1"),
        *("192.0.2.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.1.1.1"),
        *("240.0.0.1", "255.255.255.255"),
        *("::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "100::1"),
        *("64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "2001:db8::1", "2001::1"),
        *("2002:7f00:1::", "2002:a00:1::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%eth0"),
        *("fec0::1", "ff02::1", "4000::1"),
        *("192.0.0.192", "168.63.129.16", "100.100.100.200", "192.88.99.1", "3fff::1"),
        "2001:0:4136:e378:8000:63bf:80ff:fffe",  # Teredo around 127.0.0.1.
    ],
)
def test_addresses_that_only_we_can_reach_are_refused(address):
    """Private, loopback, link-local, shared, reserved, multicast, and all of them in disguise."""
    assert not is_public(ipaddress.ip_address(address))
    assert not NOBODY.admits("example.org", address)


@pytest.mark.parametrize(
    "address",
    [
        *("1.1.1.1", "93.184.216.34", "172.32.0.1", "100.128.0.1", "192.169.0.1", "223.255.255.1"),
        *("2606:4700:4700::1111", "2a00:1450::1", "::ffff:1.1.1.1", "64:ff9b::101:101"),
        "2002:101:101::1",
    ],
)
def test_addresses_of_the_internet_are_admitted(address):
    """Those inside another form, too: a network without IPv4 writes all of it so."""
    assert NOBODY.admits("example.org", address)


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("hooks.internal", "10.9.9.9"),
        ("HOOKS.internal.", "127.0.0.1"),
        ("box.lan", "192.168.7.7"),
        ("anything.example", "10.1.255.1"),
        ("anything.example", "::ffff:10.1.0.1"),
        ("192.168.1.5", "192.168.1.5"),
        ("anything.example", "fd12::1"),
    ],
)
def test_what_the_operator_lists_is_admitted(host, address):
    """A name with whatever address it has, or an address under whatever name."""
    assert OPEN.admits(host, address)


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("hooks.internal.evil.org", "10.9.9.9"),
        ("evil-hooks.internal", "127.0.0.1"),
        ("anything.example", "10.2.0.1"),
        ("anything.example", "192.168.1.6"),
        ("anything.example", "nonsense"),
        ("anything.example", ""),
    ],
)
def test_nothing_else_is(host, address):
    """Not what only looks like it."""
    assert not OPEN.admits(host, address)


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.internal:9000/",
        "http://10.1.2.3/",
        "https://10.1.2.3/",
        "http://[fd00::1]/",
        "http://BOX.LAN/",
    ],
)
def test_http_is_for_what_the_operator_lists(url):
    """There the network between is the operator's own."""
    OPEN.validate_url(url)


@pytest.mark.parametrize(
    "entry", ["https://a.org", "a.org:80", "a.org/x", "*.a.org", "10.0.0.1/8", "a b"]
)
def test_an_entry_that_means_nothing_is_named(entry):
    """A typing error must not open or close a door in silence."""
    with pytest.raises(ValueError, match="is no host name, address or network") as refused:
        Targets.parse(["fine.org", entry])
    assert repr(entry) in str(refused.value)


def test_empty_entries_are_nothing():
    """As the end of a list with a comma too many."""
    assert Targets.parse(["", " "]) == NOBODY
