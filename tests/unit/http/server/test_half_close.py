"""Clients that send no more and wait for their answers, and clients that are gone."""

import asyncio
import contextlib
import json
import re

import pytest

from service.http.native import swagger
from service.http.state import DISPATCHER, STREAMS
from tests.support.job_service import BODY
from tests.support.simulation.fake_engine import FakeEngine

BUNDLE = "swagger-ui-bundle.js"
PATIENCE = 30.0


def post(path="/generate", body=None, more="") -> bytes:
    """Return a request with a JSON body."""
    content = json.dumps(BODY if body is None else body)
    return (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{more}"
        f"Content-Length: {len(content)}\r\n\r\n{content}"
    ).encode()


def get(path, version="1.1") -> bytes:
    return f"GET {path} HTTP/{version}\r\nHost: localhost\r\n\r\n".encode()


@contextlib.asynccontextmanager
async def half_closed(client, said):
    """Send something and no more; hand out what reads the answers."""
    reader, writer = await asyncio.open_connection(client.host, client.port)
    writer.write(said)
    writer.write_eof()
    try:
        async with asyncio.timeout(PATIENCE):
            yield reader
    finally:
        writer.transport.abort()


def taken_apart(said: bytes) -> list[tuple[int, bytes]]:
    """Return status and body of each answer in these bytes."""
    found = []
    while said:
        head, _, said = said.partition(b"\r\n\r\n")
        status = re.match(rb"HTTP/1\.[01] (\d{3}) ", head)
        length = re.search(rb"\r\nContent-Length: (\d+)", head)
        assert status is not None, head
        size = int(length[1]) if length else len(said)
        found.append((int(status[1]), said[:size]))
        said = said[size:]
    return found


async def test_an_image_is_sent_to_a_client_that_sends_no_more(serve):
    """However long it takes; the answer is as it always is, and the connection ends."""
    engine = FakeEngine(step_seconds=None)
    client = await serve(engine)
    async with half_closed(client, post(body=BODY | {"steps": 1})) as reader:
        await engine.jobs(1)
        begun = await reader.readexactly(len(b"HTTP/1."))  # All that goes ahead.
        await engine.step()
        ((status, body),) = taken_apart(begun + await reader.read())
    assert status == 200
    assert json.loads(body)["metadata"]["seed"] == BODY["seed"]


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (post().replace(b"application/json", b"text/plain"), 415),
        (post(body={"prompt": ""}), 400),
        (get("/nothing"), 404),
        (get("/health/live", "1.0"), 200),
        (b"no HTTP\r\n\r\n", 400),
    ],
    ids=["415", "a wrong field", "404", "HTTP/1.0", "no HTTP"],
)
async def test_whatever_is_answered_is_sent(client, said, status):
    """Refusals, too."""
    async with half_closed(client, said) as reader:
        assert [found for found, _ in taken_apart(await reader.read())] == [status]


@pytest.mark.parametrize("_again", range(3))
async def test_a_large_answer_is_sent_whole(client, _again):
    """It takes many pieces."""
    async with half_closed(client, get(f"/docs/{BUNDLE}")) as reader:
        answers = taken_apart(await reader.read())
    assert answers == [(200, swagger.assets()[BUNDLE].content)]


async def test_all_of_several_requests_are_answered_in_order(client):
    """And then the connection ends."""
    said = get("/health/live") + post(body=BODY) + get(f"/docs/{BUNDLE}") + get("/nothing")
    async with half_closed(client, said) as reader:
        answers = taken_apart(await reader.read())
    assert [status for status, _ in answers] == [200, 200, 200, 404]
    assert answers[2][1] == swagger.assets()[BUNDLE].content


async def test_events_are_sent_to_their_end(serve, tmp_path):
    """A sign of life is the first that comes after the client's end."""
    engine = FakeEngine(step_seconds=None)
    client = await serve(engine, data_dir=str(tmp_path))
    async with client.post("/jobs", json=BODY) as answer:
        job = (await answer.json())["id"]
    await engine.jobs(1)
    async with half_closed(client, get(f"/jobs/{job}/events")) as reader:
        seen = await reader.readuntil(b": still there\n\n")
        await engine.step()
        await engine.step()
        seen += await reader.read()
    assert b"event: finished" in seen
    assert seen.endswith(b"0\r\n\r\n")


async def test_half_a_body_is_no_request(client):
    """400: the rest does not come, and nobody waits for it."""
    async with half_closed(client, post()[:-5]) as reader:
        ((status, body),) = taken_apart(await reader.read())
    assert status == 400
    assert "ends too early" in json.loads(body)["detail"]


@pytest.mark.parametrize("said", [b"", b"GET /health/live HT"], ids=["nothing", "half a line"])
async def test_a_client_that_asked_for_nothing_is_let_go(client, said):
    """Its place is another's."""
    async with half_closed(client, said) as reader:
        assert await reader.read() == b""


@pytest.mark.parametrize("_again", range(3))
async def test_a_client_that_is_gone_frees_the_engine(serve, _again):
    """It began to leave like one that waits."""
    engine = FakeEngine(step_seconds=None)
    client = await serve(engine)
    _, writer = await asyncio.open_connection(client.host, client.port)
    writer.write(post())
    (job,) = await engine.jobs(1)
    writer.close()
    async with asyncio.timeout(PATIENCE):
        await engine.jobs(0)
    assert engine.cancelled == [job]
    assert client.app[DISPATCHER].running == 0


async def test_a_follower_that_is_gone_frees_its_place(serve, tmp_path):
    """Long before the next event or sign of life."""
    client = await serve(FakeEngine(step_seconds=None), data_dir=str(tmp_path))
    async with client.post("/jobs", json=BODY) as answer:
        job = (await answer.json())["id"]
    reader, writer = await asyncio.open_connection(client.host, client.port)
    writer.write(get(f"/jobs/{job}/events"))
    async with asyncio.timeout(PATIENCE / 3):
        await reader.readuntil(b"\n\n")
        writer.close()
        while client.app[STREAMS]:
            async with client.get("/health/live"):
                pass
