"""What is refused, or ends, before a request is read: Expect, versions, packed bodies, idleness."""

import asyncio
import gzip
import json
import zlib

import pytest

from service.config.credentials import Keys
from service.http.server import server
from tests.support.job_service import BODY
from tests.unit.http.server.test_half_close import PATIENCE

ALICE = "5f0c2f8e9f1b4b7f8d3a61c9e2b7d405"
JSON = "application/json"
CONTENT = json.dumps(BODY).encode()
SIZE = len(CONTENT)
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def head(path="/generate", method="POST", *, version="1.1", size=SIZE, **more) -> bytes:
    """Return the head of a request that waits for 100 Continue; ``more`` are its headers."""
    usual = {"Host": "localhost", "Content_Type": JSON, "X_API_Key": ALICE}
    headers = {**usual, "Expect": "100-continue", "Content_Length": size, **more}
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items() if value]
    return "\r\n".join([f"{method} {path} HTTP/{version}", *lines, "", ""]).encode()


@pytest.fixture
async def closed(serve):
    """Return a client of a service with a key and a small rate."""
    return await serve(api_keys=Keys(f"alice:{ALICE}"), rate_limit_per_minute=1)


async def first(client, said: bytes):
    """Send something; return the first status line that comes, and the connection."""
    reader, writer = await asyncio.open_connection(client.host, client.port)
    writer.write(said)
    async with asyncio.timeout(PATIENCE):
        return await reader.readuntil(b"\r\n\r\n"), reader, writer


REFUSED = {
    "no key": (head(X_API_Key=""), 401),
    "another type": (head(Content_Type="text/plain"), 415),
    "another encoding": (head(Content_Encoding="br"), 415),
    "too large": (head(size=50_000_000), 413),
    "no route": (head("/nothing"), 404),
    "another method": (head(method="PUT"), 405),
    "no body is read": (head("/health/live", "GET"), 200),
    "another host": (head(Host="evil.example:x"), 400),
    "another wish": (head(Expect="100-continue, coffee"), 417),
    "no time": (head(X_Request_Timeout="-1"), 400),
}


@pytest.mark.parametrize(("said", "status"), REFUSED.values(), ids=REFUSED)
async def test_a_refusal_comes_instead_of_100(closed, said, status):
    """The body is never asked for; whatever follows is not taken for another request."""
    answer, reader, writer = await first(closed, said)
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert b"\r\nConnection: close\r\n" in answer
    writer.write(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
    writer.write_eof()
    async with asyncio.timeout(PATIENCE):
        assert b"HTTP/1.1" not in await reader.read()
    writer.close()


async def test_a_request_that_is_let_in_is_told_so_once(closed):
    """Then it is answered like others, and the connection stays; the next one is too much."""
    said, reader, writer = await first(closed, head())
    assert said == CONTINUE
    writer.write(CONTENT)
    async with asyncio.timeout(PATIENCE):
        answer = await reader.readuntil(b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b"Connection: close" not in answer
        size = int(answer.partition(b"Content-Length: ")[2].partition(b"\r")[0])
        await reader.readexactly(size)
        while b" 429 " not in answer:
            writer.write(head())
            answer = await reader.readuntil(b"\r\n\r\n")
            if answer == CONTINUE:
                writer.write(CONTENT)
                answer = await reader.readuntil(b"\r\n\r\n")
                size = int(answer.partition(b"Content-Length: ")[2].partition(b"\r")[0])
                await reader.readexactly(size)
    writer.close()


@pytest.mark.parametrize("said", [head(version="1.0") + CONTENT, head() + CONTENT])
async def test_a_body_that_is_there_needs_no_100(closed, said):
    """Nor does HTTP/1.0 know of it."""
    answer, _, writer = await first(closed, said)
    assert answer.split()[1] == b"200"
    writer.close()


@pytest.mark.parametrize(
    "line", ["HTTP/2.0", "HTTP/0.9", "HTTP/1.2", "HTTP/3.0", "HTTP/3", "http/1.1", "HTTP/1", ""]
)
async def test_another_version_of_http_is_refused(client, line):
    """400 in HTTP/1; the connection ends."""
    said = f"GET /health/live {line}".rstrip() + "\r\nHost: localhost\r\n\r\n"
    answer, reader, writer = await first(client, said.encode())
    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.0 400 "))
    async with asyncio.timeout(PATIENCE):
        assert json.loads(await reader.read())["code"] == "malformed_request"
    writer.close()


def packed(content: bytes, wbits: int) -> bytes:
    packer = zlib.compressobj(wbits=wbits)
    return packer.compress(content) + packer.flush()


GZIP, ZLIB, RAW = gzip.compress(CONTENT), packed(CONTENT, 15), packed(CONTENT, -15)
BOMB = gzip.compress(b" " * 1_000_000)
PACKED = {
    "gzip": ("gzip", GZIP, 200),
    "gzip of two members": ("gzip", gzip.compress(CONTENT[:9]) + gzip.compress(CONTENT[9:]), 200),
    "deflate": ("deflate", ZLIB, 200),
    "deflate without a header": ("deflate", RAW, 200),
    **{f"gzip without its last {count}": ("gzip", GZIP[:-count], 400) for count in (1, 5, 8, 20)},
    "deflate without its last 4": ("deflate", ZLIB[:-4], 400),
    "bare deflate without its last byte": ("deflate", RAW[:-1], 400),
    "gzip with a wrong sum": ("gzip", GZIP[:-8] + bytes(4) + GZIP[-4:], 400),
    "gzip with more behind it": ("gzip", GZIP + b"more", 400),
    "gzip with zeros behind it": ("gzip", GZIP + bytes(9), 400),
    "gzip with half a member": ("gzip", GZIP + GZIP[:9], 400),
    "deflate with more behind it": ("deflate", ZLIB + b"x", 400),
    "a large body": ("gzip", BOMB, 413),
    "a large second member": ("gzip", GZIP + BOMB, 413),
    "nothing": ("gzip", b"", 400),
}


@pytest.mark.parametrize(("encoding", "content", "status"), PACKED.values(), ids=PACKED)
async def test_a_packed_body_is_whole_or_refused(client, encoding, content, status):
    """Its sum is checked, nothing may be missing, and nothing may follow."""
    headers = {"Content-Encoding": encoding, "Content-Type": JSON}
    async with client.post("/generate", data=content, headers=headers) as answer:
        assert answer.status == status, await answer.text()


@pytest.mark.parametrize("said", [b"", b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"])
async def test_an_idle_connection_is_closed(serve, monkeypatch, said):
    """Before a first request, and after one; however long requests may take."""
    monkeypatch.setattr(server, "IDLE_SECONDS", 0.05)
    client = await serve(request_timeout_seconds=300.0)
    reader, writer = await asyncio.open_connection(client.host, client.port)
    writer.write(said)
    async with asyncio.timeout(PATIENCE / 3):
        answer = await reader.read()
    assert answer.count(b"HTTP/1.1 200 ") == bool(said)
    writer.close()


async def test_an_idle_connection_stays_for_75_seconds(serve):
    """As the documents say; most proxies end theirs after 60."""
    client = await serve(request_timeout_seconds=300.0)
    async with client.get("/health/live"):
        (connection,) = client.server.runner.server.connections
        assert connection.keepalive_timeout == 75
