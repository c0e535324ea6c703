"""By which name the service was called, as it comes over the wire."""

import asyncio

import pytest

from service.config.addresses import Hosts
from service.config.credentials import Keys

KEYS = Keys("alice:5f0c2f8e9f1b4b7f8d3a61c9e2b7d405")
LIVE = "/health/live"


async def status(client, *headers: bytes, target: str = LIVE, version: str = "1.1") -> int:
    """Return the status of the answer to a request with these header lines and no others."""
    answer = await asked(client, *headers, target=target, version=version)
    return int(answer.split(b" ", 2)[1])


async def asked(client, *headers: bytes, target: str = LIVE, version: str = "1.1") -> bytes:
    """Send a request with these header lines and no others; return its answer."""
    reader, writer = await asyncio.open_connection(client.host, client.port)
    lines = [f"GET {target} HTTP/{version}".encode(), *headers, b"Connection: close", b"", b""]
    writer.write(b"\r\n".join(lines))
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


@pytest.mark.parametrize("settings", [{}, {"api_keys": KEYS}, {"allowed_hosts": Hosts("gpu.lan")}])
@pytest.mark.parametrize(
    "host",
    [
        b"",
        b" ",
        b".",
        b":8000",
        b"localhost:80@evil.example",
        b"user@localhost",
        b"user:word@localhost:80",
        b"local host",
        b"local\thost",
        b"localhost:",
        b"localhost:http",
        b"localhost:-1",
        b"localhost:0",
        b"localhost:65536",
        b"localhost:99999999999",
        b"localhost:80:80",
        b"localhost:\xd9\xa1",
        b"localhost..",
        b".localhost",
        b"local..host",
        b"localhost, localhost",
        b"localhost/",
        b"localhost#",
        b"localhost?",
        b"localhost\\evil.example",
        b"http://localhost",
        b"%6cocalhost",
        b"l\xc3\xb6calhost",
        b"\xff\xfe",
        b"[::1",
        b"::1",
        b"[::1]x",
        b"[::1]@evil.example",
        b"[::1]:x",
        b"[::1%25lo]",
        b"[::1%lo]",
        b"[localhost]",
        b"[127.0.0.1]",
        b"[1:2]",
        b"[v1.localhost]",
        b"127.1",
        b"127.0.1",
        b"2130706433",
        b"0x7f000001",
        b"0x7f.0.0.1",
        b"127.0.0.0x1",
        b"0177.0.0.1",
        b"127.0.0.01",
        b"127.0.0.256",
        b"127.0.0.1.2",
        b"gpu.1",
        b"x" * 254,
    ],
)
async def test_what_is_no_host_is_refused(serve, settings, host):
    """400 with every setting: two programs on the way could read it in two ways."""
    client = await serve(**settings)
    assert await status(client, b"Host: " + host) == 400


@pytest.mark.parametrize(
    "host",
    [
        b"localhost",
        b"LOCALHOST:1",
        b"localhost.",
        b"localhost.:65535",
        b"127.0.0.1",
        b"127.1.2.3:8000",
        b"[::1]",
        b"[0:0:0:0:0:0:0:1]:8000",
        b"[::ffff:127.0.0.1]",
        b"gpu.lan",
        b"GPU.lan.:80",
        b"sd_api-1",
        b"[fd00:0::7]",
    ],
)
async def test_names_of_this_machine_and_listed_ones_are_taken(serve, host):
    """In every spelling that a client may use."""
    client = await serve(allowed_hosts=Hosts("gpu.lan,sd_api-1,fd00::7"))
    assert await status(client, b"Host: " + host) == 200


@pytest.mark.parametrize("headers", [(), (b"Host: localhost", b"Host: evil.example")])
async def test_a_request_names_one_host(serve, headers):
    """None or two are 400; HTTP/1.0 may name none."""
    client = await serve()
    answer = await asked(client, *headers)
    assert answer.split(b" ", 2)[1] == b"400"
    assert b"The header Host must be sent exactly once." in answer
    assert await status(client, version="1.0") == 200


@pytest.mark.parametrize(
    ("target", "host", "expected"),
    [
        ("http://localhost", b"localhost", 200),
        ("HTTP://LOCALHOST:8000", b"localhost:8000", 200),
        ("https://localhost", b"localhost", 200),
        ("http://evil.example", b"localhost", 400),
        ("http://localhost", b"evil.example", 400),
        ("http://localhost:80", b"localhost:81", 400),
        ("http://user@localhost", b"localhost", 400),
        ("http://[::1%25lo]", b"localhost", 400),
        ("ftp://localhost", b"localhost", 400),
        ("http://evil.example", b"evil.example", 403),
    ],
)
async def test_a_whole_address_counts_like_the_header(serve, target, host, expected):
    """Both have to say the same, or a page could be believed by the wrong one."""
    client = await serve()
    assert await status(client, b"Host: " + host, target=target + LIVE) == expected


async def test_the_host_of_a_whole_address_needs_no_header(serve):
    """HTTP/1.0 through a proxy: the name counts all the same."""
    client = await serve()
    for host, expected in (("localhost", 200), ("evil.example", 403)):
        found = await status(client, target=f"http://{host}{LIVE}", version="1.0")
        assert found == expected
