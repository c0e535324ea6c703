"""Large answers: whole for those who take them, and small for those who do not."""

import asyncio
import contextlib
import gzip
import socket
from typing import Any

import pytest

from service.http.files import Asset
from service.http.native import swagger
from service.http.server import connections, writing
from service.http.server.writing import HIGH_WATER, PIECE, Shared
from service.http.state import CONNECTIONS, SENDING
from tests.support.job_service import BODY, until

BUNDLE = "swagger-ui-bundle.js"
MOST_KEPT = PIECE + HIGH_WATER + 1024
"""For one client that does not read; the bundle has 1.4 MB."""


@contextlib.asynccontextmanager
async def unread(client, path, count):
    """Ask for something on so many connections; read nothing."""
    loop = asyncio.get_running_loop()
    with contextlib.ExitStack() as stack:
        lines = [stack.enter_context(socket.socket()) for _ in range(count)]
        for line in lines:
            line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            line.setblocking(False)
            await loop.sock_connect(line, (client.host, client.port))
            said = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
            await loop.sock_sendall(line, said.encode())
        yield lines


async def paused(client, count):
    """Wait until that many answers are not taken, and return the connections that send them."""
    async with asyncio.timeout(60):
        while True:
            async with client.get("/health/live") as answer:
                assert answer.status == 200
            found = [each for each in client.app[CONNECTIONS].open if each.writing_paused]
            if len(found) >= count:
                return found


async def read(line) -> bytes:
    """Return all that comes on a connection."""
    loop, data = asyncio.get_running_loop(), b""
    async with asyncio.timeout(60):
        while piece := await loop.sock_recv(line, 1 << 20):
            data += piece
    return data


async def test_a_file_that_nobody_reads_is_kept_once(serve):
    """Each connection holds a piece of it; whoever reads in the end gets all of it."""
    client = await serve(max_connections=200, max_connections_per_address=200)
    async with unread(client, f"/docs/{BUNDLE}", 60) as lines:
        kept = [each.transport.get_write_buffer_size() for each in await paused(client, 60)]
        assert max(kept) <= MOST_KEPT
        for line in lines[::20]:
            head, _, body = (await read(line)).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 ")
            assert body == swagger.assets()[BUNDLE].content


async def test_an_image_that_many_are_sent_is_kept_once(serve, tmp_path):
    """It goes with the last of them."""
    client = await serve(
        data_dir=str(tmp_path), max_connections=200, max_connections_per_address=200
    )
    async with client.post("/jobs", json=BODY | {"width": 768, "height": 768}) as answer:
        job = (await answer.json())["id"]
    await until(client, job, "succeeded")
    async with unread(client, f"/jobs/{job}/image", 20) as lines:
        await paused(client, 20)
        assert len(client.app[SENDING]) == 1
        bodies = {(await read(line)).partition(b"\r\n\r\n")[2] for line in lines}
        assert len(bodies) == 1
        assert bodies.pop().startswith(b"\x89PNG")
    async with asyncio.timeout(60):
        while len(client.app[SENDING]):
            async with client.get("/health/live"):
                pass


@pytest.mark.parametrize("size", [1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE, 3 * PIECE + 7])
async def test_every_body_is_sent_whole(serve, monkeypatch, size):
    """Whatever its size is in pieces; to HEAD its length alone."""
    content = bytes(range(256)) * (size // 256 + 1)
    asset = Asset(content=content[:size], media_type="text/javascript")
    client = await serve()
    monkeypatch.setattr(swagger, "assets", lambda: {BUNDLE: asset})
    plain = {"Accept-Encoding": "identity"}
    for _ in range(2):  # The second one on the same connection.
        async with client.get(f"/docs/{BUNDLE}", headers=plain) as answer:
            assert await answer.read() == asset.content
    async with client.head(f"/docs/{BUNDLE}", headers=plain) as answer:
        assert int(answer.headers["Content-Length"]) == size
        assert await answer.read() == b""


async def test_a_packed_answer_unpacks(client):
    """Metrics are packed for those who ask for it."""
    headers = {"Accept-Encoding": "gzip"}
    async with client.get("/metrics", headers=headers, auto_decompress=False) as answer:
        assert answer.headers["Content-Encoding"] == "gzip"
        assert b"sd_ready" in gzip.decompress(await answer.read())


class Line:
    """A transport with as much to be sent as is said."""

    def __init__(self) -> None:
        self.size = 0
        self.aborted = False

    def get_write_buffer_size(self) -> int:
        return self.size

    def abort(self) -> None:
        self.aborted = True


@pytest.mark.parametrize(("taken", "aborted"), [(900, True), (1100, False)])
async def test_a_slow_client_is_judged_by_what_it_took_in_the_whole_while(
    monkeypatch, taken, aborted
):
    """Catching up for a moment does not buy it another while."""
    monkeypatch.setattr(connections, "SLOWEST_BYTES_PER_SECOND", 1000)
    line: Any = Line()
    pace = connections.WriteRateGuard(1)
    looks = []

    def later(_seconds, *look):
        looks.append(look)
        return look

    monkeypatch.setattr(asyncio.get_running_loop(), "call_later", later)
    pace.wrote(5000)
    line.size = 5000
    pace.watch(line)
    pace.caught_up()
    pace.wrote(taken)
    pace.watch(line)
    ((look, *given),) = looks
    look(*given)
    assert line.aborted == aborted


def test_of_two_bodies_by_one_name_the_first_is_kept():
    """Two clients that ask at once end with one."""
    shared = Shared()
    first = shared.keep("a", b"x")
    assert shared.keep("a", b"y") is first
    assert shared.get("a") is first
    assert shared.get("b") is None


def test_the_system_keeps_little_that_it_has_not_sent():
    """Or 500 clients that do not read would take a gigabyte of the machine's memory."""
    assert writing.UNSENT <= 2 * PIECE
