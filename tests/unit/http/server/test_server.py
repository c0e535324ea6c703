"""What aiohttp answers by itself: in our one shape, and without the client's bytes."""

import asyncio
import json

import pytest
from structlog.testing import capture_logs

from service.http.route import UNMATCHED
from service.http.server import server
from service.http.state import DISPATCHER, METRICS

MEMBERS = {"type", "title", "status", "detail", "instance", "code", "request_id"}
GET = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
POST = (
    b"POST /generate HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    b"Content-Type: application/json\r\n"
)
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"


async def talk(client, *pieces: bytes) -> bytes:
    """Send bytes as they are; return all that comes until the service closes the connection."""
    reader, writer = await asyncio.open_connection(client.host, client.port)
    for piece in pieces:
        writer.write(piece)
        await writer.drain()
        async with client.get("/health/live"):  # A round trip: the piece is read by now.
            pass
    async with asyncio.timeout(30):
        answer = await reader.read()
    writer.close()
    return answer


def taken_apart(answer: bytes) -> tuple[int, dict[str, str], dict[str, object]]:
    """Return status, headers and body of the one answer in these bytes."""
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode("ascii").split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    return int(first.split()[1]), headers, json.loads(body)


MALFORMED = {
    "a request line": b"SECRET\r\n\r\n",
    "an unknown method": b"FOO /SECRET HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03SECRET",
    "a path beyond ASCII": b"GET /SECRET\xc3\xa9 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a long address": b"GET /" + b"SECRET" * 2000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a long header": GET + b"A: " + b"SECRET" * 2000 + b"\r\n\r\n",
    "NUL in a header": GET + b"A: SECRET\0\r\n\r\n",
    "two types of content": POST + b"Content-Type: text/SECRET\r\nContent-Length: 2\r\n\r\n{}",
    "a chunk that is too long": CHUNKED + b'5\r\n{"prompt":"SECRET"}\r\n0\r\n\r\n',
    "a chunk without a length": CHUNKED + b'zz\r\n{"prompt":"SECRET"}\r\n0\r\n\r\n',
}


@pytest.mark.parametrize("raw", MALFORMED.values(), ids=MALFORMED)
async def test_what_cannot_be_parsed_is_answered_in_the_one_shape(client, caplog, raw):
    """400 as a problem; neither the answer nor the log repeats what was sent."""
    with capture_logs() as lines:
        answer = await talk(client, raw)
    status, headers, body = taken_apart(answer)
    assert (status, body["status"], body["code"]) == (400, 400, "malformed_request")
    assert body.keys() == MEMBERS
    assert (headers["Content-Type"], headers["Server"], headers["X-Request-ID"]) == (
        "application/problem+json",
        "sd-api",
        body["request_id"],
    )
    (line,) = [line for line in lines if line["event"] == "request_malformed"]
    assert line.keys() == {"event", "log_level", "error", "request_id"}
    assert (line["log_level"], line["request_id"]) == ("info", body["request_id"])
    assert b"SECRET" not in answer
    assert "SECRET" not in f"{lines}{caplog.text}"
    assert [record.name for record in caplog.records if record.name.startswith("aiohttp")] == []


async def test_a_chunk_that_goes_wrong_later_ends_the_request(client, caplog):
    """400 at once: the handler does not wait for the rest until its deadline."""
    with capture_logs() as lines:
        answer = await talk(client, CHUNKED, b'5\r\n{"prompt":"SECRET"}\r\n0\r\n\r\n')
    status, _, body = taken_apart(answer)
    assert (status, body["code"]) == (400, "validation_error")
    assert "request_malformed" in [line["event"] for line in lines]
    assert "SECRET" not in f"{answer!r}{lines}{caplog.text}"


@pytest.mark.parametrize("encoding", [b"br", b"zstd", b"bogus", b"gzip, gzip"])
async def test_an_encoding_that_nobody_unpacks_is_refused(client, encoding):
    """415 with those that are understood (RFC 9110, 15.5.16)."""
    raw = POST + b"Content-Encoding: " + encoding + b"\r\nContent-Length: 2\r\n\r\n{}"
    status, headers, body = taken_apart(await talk(client, raw))
    assert (status, body["code"]) == (415, "unsupported_encoding")
    assert headers["Accept-Encoding"] == "gzip, deflate, identity"


async def test_identity_is_an_encoding(client):
    """It says that there is none."""
    body = {"prompt": "a boat", "width": 256, "height": 256, "steps": 1}
    async with client.post(
        "/generate", json=body, headers={"Content-Encoding": "identity"}
    ) as answer:
        assert answer.status == 200


@pytest.mark.parametrize("wish", [b"SECRET", b"\x80"])
@pytest.mark.parametrize("path", [b"/health", b"/nothing"])
async def test_an_unknown_expectation_is_refused_in_the_one_shape(client, path, wish):
    """417 with the request's own id; aiohttp checks it before any middleware."""
    raw = (
        b"GET " + path + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        b"X-Request-ID: mine\r\nExpect: " + wish + b"\r\n\r\n"
    )
    status, headers, body = taken_apart(await talk(client, raw))
    assert (status, body["code"], body["instance"]) == (417, "expectation_failed", path.decode())
    assert (headers["X-Request-ID"], headers["Server"]) == ("mine", "sd-api")
    assert "SECRET" not in str(body)


async def test_a_body_that_does_not_unpack_is_no_error_of_ours(client, caplog):
    """400 once, and one line that names the kind of mistake."""
    raw = POST + b"Content-Encoding: gzip\r\nContent-Length: 6\r\n\r\nSECRET"
    with capture_logs() as lines:
        status, _, body = taken_apart(await talk(client, raw))
    assert (status, body["code"]) == (400, "validation_error")
    assert [line for line in lines if line["event"] == "request_malformed"] == [
        {"event": "request_malformed", "log_level": "info", "error": "RequestPayloadError"}
    ]
    assert [record.name for record in caplog.records if record.name.startswith("aiohttp")] == []


async def test_connect_is_told_that_this_is_no_proxy(client):
    """404 with an instance: the target of CONNECT is a host, and has no path."""
    raw = b"CONNECT there:80 HTTP/1.1\r\nHost: localhost:80\r\nConnection: close\r\n\r\n"
    status, _, body = taken_apart(await talk(client, raw))
    assert (status, body["code"], body["instance"]) == (404, "not_found", "/")
    assert "no proxy" in str(body["detail"])


@pytest.mark.parametrize(
    ("lines", "name"),
    [
        (b"Content-Type: text/SECRET\r\nContent-Length: 2\r\n", "Content-Type"),
        (b"Content-Length: 2\r\nContent-Length: 3\r\n", "Content-Length"),
        (b"host: SECRET\r\nContent-Length: 2\r\n", "Host"),
    ],
)
async def test_a_header_that_must_be_there_once_is_named(client, lines, name):
    """Without what was sent."""
    status, _, body = taken_apart(await talk(client, POST + lines + b"\r\n{}"))
    assert (status, body["detail"]) == (400, f"The header {name} must be sent exactly once.")
    assert "SECRET" not in str(body)


async def test_malformed_requests_are_counted(client):
    """A flood of them shows in the same metric as all answers."""
    await talk(client, b"SECRET\r\n\r\n")
    labels = {"api": "native", "route": UNMATCHED, "method": "other", "status": "400"}
    registry = client.app[METRICS].registry
    assert registry.get_sample_value("sd_http_requests_total", labels) == 1


async def test_an_error_outside_the_middlewares_is_answered_and_logged(client, monkeypatch):
    """500 in the one shape; it is a mistake of ours, so the log has the traceback."""

    async def broken(_request):
        raise RuntimeError("SECRET")

    monkeypatch.setattr(client.app.router, "resolve", broken)
    reader, writer = await asyncio.open_connection(client.host, client.port)
    with capture_logs() as lines:
        writer.write(GET + b"\r\n")
        async with asyncio.timeout(30):
            status, headers, body = taken_apart(await reader.read())
    writer.close()
    assert (status, body["code"], headers["Server"]) == (500, "internal_error", "sd-api")
    assert "SECRET" not in str(body)
    (line,) = [line for line in lines if line["event"] == "request_failed"]
    assert isinstance(line["exc_info"], RuntimeError)


async def test_headers_that_never_end_are_not_waited_for(serve, monkeypatch):
    """The connection is closed once the time of a request, or of an idle connection, is over."""
    monkeypatch.setattr(server, "IDLE_SECONDS", 0.01)
    client = await serve(request_timeout_seconds=0.2)
    reader, writer = await asyncio.open_connection(client.host, client.port)
    writer.write(GET + b"A: ")
    async with asyncio.timeout(30):
        assert await reader.read() == b""
    writer.close()


async def test_a_handler_that_fails_is_logged_with_its_traceback(client, monkeypatch):
    """Mistakes of ours keep everything that finds them."""

    def submit(_job):
        raise RuntimeError("broken")

    monkeypatch.setattr(client.app[DISPATCHER], "submit", submit)
    with capture_logs() as lines:
        async with client.post("/generate", json={"prompt": "a boat"}) as answer:
            assert answer.status == 500
    (line,) = [line for line in lines if line["event"] == "request_failed"]
    assert (line["log_level"], line["exc_info"]) == ("error", True)
