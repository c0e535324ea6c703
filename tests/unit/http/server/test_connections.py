"""Who gets a connection, and who is too slow to keep one; with raw sockets."""

import asyncio
import contextlib
import json
import socket
from typing import Any

import pytest

from service.http.server import connections, server
from service.http.state import CONNECTIONS, METRICS
from tests.support.simulation.fake_engine import FakeEngine

HEAD = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n"
POST = (
    b"POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Content-Length: 100\r\n\r\n"
)
BODY = {"prompt": "a boat", "width": 256, "height": 256, "steps": 1}


@contextlib.asynccontextmanager
async def connected(client):
    reader, writer = await asyncio.open_connection(client.host, client.port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def rest(reader) -> bytes:
    """Return all that comes until the service closes the connection."""
    data = b""
    async with asyncio.timeout(30):
        with contextlib.suppress(ConnectionError):
            while piece := await reader.read(65_536):
                data += piece
    return data


async def alive(reader, writer) -> bool:
    writer.write(HEAD + b"\r\n")
    async with asyncio.timeout(30):
        return bool((await reader.readline()).startswith(b"HTTP/1.1 200"))


async def test_a_connection_that_says_nothing_is_closed(serve):
    """It has a place that another may need."""
    client = await serve(header_timeout_seconds=0.05)
    async with connected(client) as (reader, _):
        assert await rest(reader) == b""


async def test_headers_byte_by_byte_are_cut_off(serve):
    """Slow loris: each byte comes in time, the end of the headers does not."""
    client = await serve(header_timeout_seconds=0.2)

    async def drip(writer) -> None:
        with contextlib.suppress(ConnectionError):
            for byte in HEAD * 1000:
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.wait({ended}, timeout=0.01)

    async with connected(client) as (reader, writer):
        ended = asyncio.ensure_future(rest(reader))
        dripping = asyncio.create_task(drip(writer))
        assert await ended == b""
        dripping.cancel()


async def test_the_next_request_of_a_connection_has_as_long(serve):
    """A first good request buys no time for a second one that never ends."""
    client = await serve(header_timeout_seconds=0.2)
    async with connected(client) as (reader, writer):
        assert await alive(reader, writer)
        writer.write(HEAD)
        assert b"HTTP/1.1" not in await rest(reader)


async def test_a_long_image_is_no_slow_client(serve):
    """While a request is in work nothing has to arrive."""
    engine = FakeEngine(step_seconds=None)
    client = await serve(engine, header_timeout_seconds=0.01)
    body = json.dumps(BODY).encode()
    async with connected(client) as (reader, writer):
        writer.write(POST.replace(b"100", str(len(body)).encode()) + body)
        await engine.jobs(1)
        for _ in range(20):
            async with client.get("/health/live"):
                pass
        await engine.step()
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")


async def test_a_body_byte_by_byte_is_cut_off(serve, monkeypatch):
    """408 that names the setting, long before the deadline of the request."""
    monkeypatch.setattr(server, "LINGERING_SECONDS", 0.01)
    client = await serve(body_timeout_seconds=0.05)
    async with connected(client) as (reader, writer):
        writer.write(POST + b'{"prompt": "a')
        answer = await rest(reader)
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"BODY_TIMEOUT_SECONDS" in answer


async def test_an_answer_that_nobody_takes_is_cut_off(serve, monkeypatch):
    """The image does not stay in memory for a client that does not read it."""
    monkeypatch.setattr(connections, "SLOWEST_BYTES_PER_SECOND", 10**9)
    client = await serve(send_timeout_seconds=0.05, max_images=64, max_concurrent_requests=64)
    body = json.dumps({**BODY, "width": 768, "height": 768, "num_images": 64}).encode()
    with socket.socket() as narrow:
        narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        narrow.setblocking(False)
        await asyncio.get_running_loop().sock_connect(narrow, (client.host, client.port))
        await asyncio.get_running_loop().sock_sendall(
            narrow, POST.replace(b"100", str(len(body)).encode()) + body
        )
        limiter = client.app[CONNECTIONS]
        async with asyncio.timeout(60):
            while len(limiter) < 2:
                async with client.get("/health/live"):
                    pass
            while len(limiter) > 1:
                async with client.get("/health/live"):
                    pass


class Transport:
    """Counts what is still to be sent, as told."""

    def __init__(self, *sizes: int) -> None:
        self.sizes = list(sizes)
        self.aborted = asyncio.Event()

    def get_write_buffer_size(self) -> int:
        return self.sizes.pop(0)

    def abort(self) -> None:
        self.aborted.set()


async def test_a_slow_client_that_goes_on_taking_is_left_alone():
    """Only a while without progress ends it."""
    transport: Any = Transport(9000, 6000, 3000, 2999)
    connections.WriteRateGuard(0.001).watch(transport)
    await transport.aborted.wait()
    assert transport.sizes == []


@pytest.mark.parametrize(
    "raw",
    [
        HEAD + b"A: " + b"x" * 9000 + b"\r\n\r\n",
        HEAD + b"".join(b"A%d: x\r\n" % n for n in range(200)) + b"\r\n",
        HEAD + b"A: " + b"x" * 1_000_000,
        b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\n\r\n",
    ],
    ids=["a long one", "many", "one without an end", "a long address"],
)
async def test_huge_headers_are_refused(client, raw):
    """400 after 8 kB of one, or 128 of them; no memory is filled."""
    async with connected(client) as (reader, writer):
        writer.write(raw)
        with contextlib.suppress(ConnectionError):
            await writer.drain()
        answer = await rest(reader)
        assert answer == b"" or answer.split()[1] == b"400"


async def test_one_connection_too_many_ends_the_longest_idle_one(serve):
    """Who hoards connections has most of these; a new client still gets in."""
    client = await serve(max_connections=2, max_connections_per_address=2)
    async with connected(client) as first, connected(client) as second:
        assert await alive(*first)
        assert await alive(*second)
        async with connected(client) as third:
            assert await alive(*third)
            assert b"HTTP" not in await rest(first[0])


async def test_where_all_are_at_work_the_new_one_is_refused(serve):
    """503 with Retry-After, at once and without reading; it is counted."""
    engine = FakeEngine(step_seconds=None)
    client = await serve(engine, max_connections=1)
    body = json.dumps(BODY).encode()
    async with connected(client) as (reader, writer):
        writer.write(POST.replace(b"100", str(len(body)).encode()) + body)
        await engine.jobs(1)
        async with connected(client) as (refused, _):
            head, _, problem = (await rest(refused)).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503 ")
        assert b"\r\nRetry-After: 1\r\n" in head
        assert json.loads(problem)["code"] == "too_many_connections"
        await engine.step()
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    registry = client.app[METRICS].registry
    assert (
        registry.get_sample_value(
            "sd_requests_refused_total", {"api": "native", "reason": "connections"}
        )
        == 1
    )


async def test_places_are_given_back(serve):
    """However a connection ends."""
    client = await serve(max_connections=5, max_connections_per_address=5)
    for _ in range(20):
        async with connected(client) as (reader, writer):
            assert await alive(reader, writer)
    limiter = client.app[CONNECTIONS]
    async with asyncio.timeout(30):
        while len(limiter) > 1:
            async with client.get("/health/live"):
                pass


async def test_a_thousand_silent_connections_do_not_fill_the_service(serve):
    """The service goes on answering those that ask."""
    client = await serve(max_connections=50)
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(200):
            await stack.enter_async_context(connected(client))
        async with connected(client) as (reader, writer):
            assert await alive(reader, writer)
        assert len(client.app[CONNECTIONS]) <= 50


def test_the_rest_of_a_refused_body_is_not_read_for_long():
    """Its sender could go on for ever."""
    assert server.LINGERING_SECONDS <= 5
