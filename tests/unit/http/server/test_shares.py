"""One client's share of the connections, one key's of event streams, and places for probes."""

import asyncio
import contextlib
import json
import re
import socket
from typing import Any

import pytest

from service.config.addresses import Networks
from service.config.credentials import Keys
from service.config.table import Config
from service.errors import TooManyConnections, TooManyFromAddress
from service.http.server import connections
from service.http.server.connections import ConnectionLimiter
from service.http.state import CONNECTIONS, METRICS, STREAMS
from tests.support.simulation.fake_engine import FakeEngine

BODY = {"prompt": "a boat", "width": 256, "height": 256, "steps": 1}
HALF_A_BODY = (
    b"POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b'Content-Length: 100\r\n\r\n{"prompt": '
)
DOCS = b"GET /docs HTTP/1.1\r\nHost: localhost\r\n\r\n"
NEIGHBOUR = "127.0.0.2"
PROBES = ("/health/live", "/health/ready", "/health", "/metrics")
ALICE, BOB = "5f0c2f8e9f1b4b7f8d3a61c9e2b7d405", "0b7d3f51e8a24c6690d2fa7c1b9e4d83"


@contextlib.asynccontextmanager
async def line(client, said=b"", *, address="127.0.0.1"):
    """Open a connection from ``address`` and say something on it."""
    reader, writer = await asyncio.open_connection(
        client.host, client.port, local_addr=(address, 0)
    )
    writer.write(said)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def answered(client, said, *, address="127.0.0.1") -> tuple[int, dict[str, str], Any]:
    """Ask on a connection of its own; return status, headers and body of what comes."""
    async with line(client, said, address=address) as (reader, _), asyncio.timeout(30):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        headers = dict(re.findall(r"^([\w-]+): (.*)\r$", head, re.MULTILINE))
        body = await reader.readexactly(int(headers["Content-Length"]))
    return int(head.split()[1]), headers, body


async def asked(client, path, **more) -> tuple[int, dict[str, str], Any]:
    said = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    return await answered(client, said, **more)


async def until(true) -> None:
    """Wait until something is true, without a connection more; the others move on meanwhile."""
    async with asyncio.timeout(30):
        while not true():
            await asyncio.wait([asyncio.ensure_future(asyncio.sleep(0))])


async def taken(client, count: int) -> None:
    """Wait until so many connections are open."""
    await until(lambda: len(client.app[CONNECTIONS]) == count)


async def test_one_address_has_a_quarter_of_the_connections(serve):
    """Half bodies hold no more; the next is 429 with Retry-After, and others are served."""
    client = await serve(max_connections=16)
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(4):
            await stack.enter_async_context(line(client, HALF_A_BODY))
        await taken(client, 4)
        for _ in range(40):
            status, headers, body = await answered(client, HALF_A_BODY)
            problem = json.loads(body)
            assert (status, problem["code"]) == (429, "too_many_from_address")
            assert "MAX_CONNECTIONS_PER_ADDRESS" in problem["detail"]
            assert (headers["Retry-After"], headers["Connection"]) == ("1", "close")
        assert (await answered(client, DOCS, address=NEIGHBOUR))[0] == 200
    registry = client.app[METRICS].registry
    assert (
        registry.get_sample_value(
            "sd_requests_refused_total", {"api": "native", "reason": "address"}
        )
        == 40
    )


@pytest.mark.parametrize("path", PROBES)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_probes_and_metrics_are_answered_when_all_places_are_taken(serve, path, method):
    """A busy service is no dead one; whatever else is asked is refused."""
    client = await serve(max_connections=2, max_connections_per_address=2)
    async with line(client, HALF_A_BODY), line(client, HALF_A_BODY):
        await taken(client, 2)
        said = f"{method} {path}?a HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        async with line(client, said[:9]) as (reader, writer), asyncio.timeout(30):
            async with line(client, said):
                pass
            writer.write(said[9:])
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 ")
            assert b"\r\nConnection: close\r\n" in head
            await reader.read()
        status, headers, body = await answered(client, DOCS)
        assert (status, json.loads(body)["code"]) == (503, "too_many_connections")
        assert headers["Retry-After"] == "1"
        assert client.app[METRICS].registry.get_sample_value("sd_connections") == 2
        assert client.app[METRICS].registry.get_sample_value("sd_connections_limit") == 2


@pytest.mark.parametrize(
    "first",
    [b"GET /healthy HTTP/1.1\r\n", b"POST /metrics HTTP/1.1\r\n", b"GET /metrics", b"x" * 999],
    ids=["another path", "another method", "half a line", "no line"],
)
async def test_what_only_begins_like_a_probe_is_none(serve, first, monkeypatch):
    """It is answered by the limit that was reached, in the end also where nothing follows."""
    monkeypatch.setattr(connections, "PROBE_SECONDS", 0.05)
    client = await serve(max_connections=1)
    async with line(client, HALF_A_BODY):
        await taken(client, 1)
        assert (await answered(client, first))[0] == 503


async def test_a_second_request_needs_a_place_like_others(serve):
    """A probe's connection is no way in: it ends with the answer."""
    client = await serve(max_connections=1)
    probe = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
    async with line(client, HALF_A_BODY):
        await taken(client, 1)
        async with line(client, probe + DOCS) as (reader, _), asyncio.timeout(30):
            said = await reader.read()
    assert said.count(b"HTTP/1.1 ") == 1


async def test_silence_takes_no_place_for_probes(serve):
    """Who crowds them makes room for others first."""
    client = await serve(max_connections=1)
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(line(client, HALF_A_BODY))
        await taken(client, 1)
        for _ in range(3 * connections.PROBES):
            await stack.enter_async_context(line(client))
        assert (await asked(client, "/health/live", address=NEIGHBOUR))[0] == 200
        assert (await asked(client, "/health/live"))[0] == 200


@pytest.mark.parametrize("cut", [10, 27, 35, 60])
async def test_a_probe_may_come_in_pieces(serve, cut):
    """Where all places are taken, too: supervisors write as they like."""
    client = await serve(max_connections=4)
    said = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(line(client, HALF_A_BODY))
        await taken(client, 1)
        async with line(client, said[:cut]) as (reader, writer), asyncio.timeout(30):
            await until(lambda: len(client.app[CONNECTIONS]._probing) == 1)
            for piece in (said[cut : cut + 4], said[cut + 4 :]):
                for _ in range(9):
                    await asyncio.sleep(0)  # The pieces are read one by one.
                writer.write(piece)
            assert b"HTTP/1.1 200" in await reader.read()


@pytest.mark.parametrize("path", ["/docs", "/health/live"])
async def test_a_burst_is_answered_one_by_one(serve, path):
    """What came while the service was busy is no idle connection: it is answered or refused."""
    client = await serve(max_connections=64)
    said = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
    loop, statuses = asyncio.get_running_loop(), set()
    with contextlib.ExitStack() as stack:
        lines = [
            stack.enter_context(socket.create_connection((client.host, client.port)))
            for _ in range(60)
        ]
        for each in lines:
            each.sendall(said)
            each.setblocking(False)
        async with asyncio.timeout(30):
            for each in lines:
                statuses.add((await loop.sock_recv(each, 65536)).split()[1])
    assert statuses == {b"200", b"429"}


async def test_an_idle_connection_of_ones_own_makes_room(serve):
    """A client with idle connections is not refused; those of others stay."""
    client = await serve(max_connections=4)
    said = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
    async with line(client, said, address=NEIGHBOUR) as (theirs, writer), asyncio.timeout(30):
        assert b"200" in await theirs.readline()
        async with line(client, said) as (ours, _):
            assert b"200" in await ours.readline()
            assert (await asked(client, "/docs"))[0] == 200
            assert b"HTTP/1.1 200" not in (await ours.read())
        await theirs.readuntil(b"alive")
        writer.write(said)
        assert b"200" in await theirs.readuntil(b"alive")


async def test_a_key_follows_so_many_jobs_at_a_time(tmp_path, serve):
    """The next event stream is 429 with Retry-After; another key has its own."""
    client = await serve(
        FakeEngine(step_seconds=None),
        data_dir=str(tmp_path),
        api_keys=Keys(f"alice:{ALICE},bob:{BOB}"),
        max_event_streams_per_key=2,
    )
    alice, bob = ({"X-API-Key": secret} for secret in (ALICE, BOB))
    async with contextlib.AsyncExitStack() as stack:
        for key, statuses in ((alice, (200, 200, 429, 429)), (bob, (200, 200, 429))):
            async with client.post("/jobs", json=BODY, headers=key) as answer:
                path = f"/jobs/{(await answer.json())['id']}/events"
            for status in statuses:
                stream = await stack.enter_async_context(client.get(path, headers=key))
                assert stream.status == status
                if status == 429:
                    assert (await stream.json())["code"] == "too_many_streams"
                    assert stream.headers["Retry-After"] == "5"
        value = client.app[METRICS].registry.get_sample_value
        assert value("sd_event_streams") == 4
        assert value("sd_requests_refused_total", {"api": "native", "reason": "streams"}) == 3
        assert len(client.app[STREAMS]) == 2
    await until(lambda: not client.app[STREAMS])
    assert value("sd_event_streams") == 0


async def test_without_keys_an_address_follows_so_many(tmp_path, serve):
    """Everybody else is somebody else."""
    client = await serve(
        FakeEngine(step_seconds=None), data_dir=str(tmp_path), max_event_streams_per_key=1
    )
    async with client.post("/jobs", json=BODY) as answer:
        path = f"/jobs/{(await answer.json())['id']}/events"
    async with client.get(path):
        assert (await asked(client, path))[0] == 429
        said = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        async with line(client, said, address=NEIGHBOUR) as (reader, _):
            assert b"200" in await reader.readline()


async def test_behind_a_trusted_proxy_its_clients_are_counted(serve):
    """Whatever connection a request comes on; the proxy has as many as it likes."""
    engine = FakeEngine(step_seconds=None)
    client = await serve(engine, max_connections=8, trusted_proxies=Networks("127.0.0.1"))

    def generate(address):
        return client.post("/generate", json=BODY, headers={"X-Forwarded-For": address})

    working = [asyncio.create_task(generate("2001:db8::1")) for _ in range(2)]
    await engine.jobs(2)
    async with generate("2001:db8::2") as answer:
        assert (answer.status, answer.headers["Retry-After"]) == (429, "1")
        assert (await answer.json())["code"] == "too_many_from_address"
    for path, status in ((PROBES[0], 200), ("/docs", 429)):
        async with client.get(path, headers={"X-Forwarded-For": "2001:db8::3"}) as answer:
            assert answer.status == status
    async with client.get("/docs", headers={"X-Forwarded-For": "2001:db8:0:1::1"}) as answer:
        assert answer.status == 200
    for task in working:
        task.cancel()
    await asyncio.gather(*working, return_exceptions=True)
    await until(lambda: not client.app[CONNECTIONS].requests)


class Closable:
    """A connection that is always at work."""

    idle = False

    def force_close(self) -> None:
        """Stay."""


def test_one_client_is_an_ipv4_address_or_an_ipv6_network():
    """However it is written; a proxy is none."""
    limiter = ConnectionLimiter(Config(max_connections=4, trusted_proxies=Networks("10.0.0.0/8")))
    assert limiter.admit(Closable(), "192.0.2.1") is None
    assert isinstance(limiter.admit(Closable(), "::ffff:192.0.2.1"), TooManyFromAddress)
    assert limiter.admit(Closable(), "2001:db8::1") is None
    assert isinstance(limiter.admit(Closable(), "2001:db8::ff%eth0"), TooManyFromAddress)
    assert limiter.admit(Closable(), "10.0.0.1") is None
    assert limiter.admit(Closable(), "::ffff:10.0.0.1") is None
    assert isinstance(limiter.admit(Closable(), "198.51.100.1"), TooManyConnections)


@pytest.mark.parametrize(("most", "share"), [(512, 128), (8, 2), (3, 1), (1, 1)])
def test_the_share_is_a_quarter_unless_it_is_set(most, share):
    """One at least."""
    assert Config(max_connections=most).connections_per_address == share
    assert Config(max_connections=most, max_connections_per_address=7).connections_per_address == 7
