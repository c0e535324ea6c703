"""Streams that nobody reads."""

import asyncio
import contextlib
import json
import socket

from service.http.state import CONNECTIONS, JOBS, METRICS
from tests.support.simulation.fake_engine import FakeEngine

PATH = "/v1/images/generations"
BODY = {"prompt": "a boat", "size": "768x768", "steps": 4, "n": 4, "stream": True}


@contextlib.asynccontextmanager
async def unread(client, count):
    """Begin so many streams, and read nothing of them."""
    loop, body = asyncio.get_running_loop(), json.dumps(BODY | {"partial_images": 3}).encode()
    said = (
        f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            line = stack.enter_context(socket.socket())
            line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            line.setblocking(False)
            await loop.sock_connect(line, (client.host, client.port))
            await loop.sock_sendall(line, said.encode() + body)
        yield


async def until(client, reached):
    """Wait until something is so; each look is a round trip."""
    async with asyncio.timeout(60):
        while not reached():
            async with client.get("/health/live"):
                pass


def paused(client) -> list[object]:
    """Return the connections whose client takes nothing."""
    return [each for each in client.app[CONNECTIONS].open if each.writing_paused]


def succeeded(client) -> float:
    labels = {"api": "openai", "outcome": "succeeded", "code": ""}
    return client.app[METRICS].registry.get_sample_value("sd_jobs_total", labels) or 0.0


async def test_a_client_that_stops_reading_costs_nobody(serve):
    """Its job is done and leaves the engine, others get theirs, and then its connection ends."""
    engine = FakeEngine(step_seconds=0.001)
    client = await serve(engine, max_concurrent_requests=4, send_timeout_seconds=2)
    async with unread(client, 3):
        await until(client, lambda: succeeded(client) == 3 and len(paused(client)) == 3)
        held = paused(client)
        assert not engine.batch
        assert not client.app[JOBS].live
        async with client.post(PATH, json={"prompt": "a boat", "size": "256x256"}) as answer:
            assert answer.status == 200
            assert (await answer.json())["data"]
        await until(client, lambda: not {*held} & {*client.app[CONNECTIONS].open})
