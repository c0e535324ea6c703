"""The one way in which the service calls others."""

import asyncio
import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver
from aiohttp.test_utils import TestServer

from service.webhooks.client import Outbound
from service.webhooks.delivery import Answer, Refused, Unreachable
from service.webhooks.targets import Targets

HOST = "hooks.internal"


class Names(AbstractResolver):
    """A resolver whose answers a test sets, one after the other."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    async def resolve(self, host, port=0, family=socket.AF_INET):
        self.asked.append(host)
        found = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if not found:
            raise OSError("unknown")
        return [
            {
                "hostname": host,
                "host": address,
                "port": port,
                "family": socket.AF_INET6 if ":" in address else socket.AF_INET,
                "proto": 0,
                "flags": socket.AI_NUMERICHOST,
            }
            for address in found
        ]

    async def close(self):
        """Hold nothing."""


class Receiver:
    """A server on the loopback that keeps what came, and answers as a test says."""

    def __init__(self) -> None:
        self.seen: list[tuple[dict[str, str], bytes]] = []
        self.answer: Callable[[], web.Response] = lambda: web.Response(status=204)
        app = web.Application()
        app.router.add_post("/{path:.*}", self.handle)
        self.server = TestServer(app)

    async def handle(self, request):
        self.seen.append((dict(request.headers), await request.read()))
        return self.answer()

    @property
    def port(self):
        return self.server.port


@pytest.fixture
async def receiver():
    made = Receiver()
    async with made.server:
        yield made


def outbound(*answers, allowed=(HOST,), **settings) -> Outbound:
    names = Names(*(answers or (["127.0.0.1"],)))
    return Outbound(Targets.parse(allowed), **{"resolver": lambda _: names, **settings})


def url(receiver, host=HOST, scheme="http"):
    return f"{scheme}://{host}:{receiver.port}/done?token=1"


async def test_a_body_is_sent_with_its_headers(receiver):
    """And nothing that tells what the service is made of, but its name."""
    answer = await outbound()(url(receiver), b"{}", {"Webhook-Id": "1"}, "anna")
    assert answer == Answer(status=204)
    ((headers, body),) = receiver.seen
    assert (body, headers["Webhook-Id"], headers["User-Agent"]) == (b"{}", "1", "sd-api")


@pytest.mark.parametrize("status", [200, 404, 500])
async def test_any_status_is_an_answer(receiver, status):
    """What it means is not decided here."""
    receiver.answer = lambda: web.Response(status=status, body=b"x" * 100_000)
    assert await outbound()(url(receiver), b"{}", {}, "anna") == Answer(status=status)


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("17", 17.0),
        ("0", 0.0),
        ("9" * 400, 999_999_999.0),
        ("Thu, 01 Jan 1970 00:20:00 GMT", 200.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        ("soon", None),
        ("-5", None),
        ("", None),
    ],
)
async def test_a_retry_after_is_read_in_both_forms(receiver, said, seconds):
    """Seconds or a date; what is neither says nothing."""
    receiver.answer = lambda: web.Response(status=503, headers={"Retry-After": said})
    answer = await outbound(now=lambda: 1_000.0)(url(receiver), b"{}", {}, "anna")
    assert answer == Answer(status=503, retry_after=seconds)


async def test_redirects_are_not_followed(receiver):
    """They would lead where nobody has checked."""
    receiver.answer = lambda: web.Response(status=307, headers={"Location": url(receiver)})
    assert (await outbound()(url(receiver), b"{}", {}, "anna")).status == 307
    assert len(receiver.seen) == 1


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "::ffff:127.0.0.1", "10.0.0.1", "0.0.0.0"])  # noqa: S104
async def test_a_name_that_leads_inside_is_refused(receiver, address):
    """Nothing arrives there, and the words do not tell the address."""
    with pytest.raises(Refused, match=r"evil\.example is no public address") as refused:
        await outbound([address])(url(receiver, "evil.example", "https"), b"{}", {}, "anna")
    assert receiver.seen == []
    assert address not in str(refused.value)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "[::1]", "localhost", "2130706433", "127.1", "0x7f.1"]
)
async def test_an_address_in_any_spelling_is_refused(receiver, host):
    """Whether we read it as an address or the system's resolver does."""
    real = Outbound(Targets.parse([]))
    with pytest.raises(Refused):
        await real(url(receiver, host, "https"), b"{}", {}, "anna")
    assert receiver.seen == []


async def test_a_name_that_changes_its_address_gains_nothing(receiver):
    """Every attempt looks the name up again, and checks what it connects to (DNS rebinding)."""
    names = Names(["127.0.0.1"], ["10.0.0.1"], ["127.0.0.1"])
    send = outbound(allowed=["127.0.0.0/8"], resolver=lambda _: names)
    target = url(receiver, "rebind.example", "https")
    with pytest.raises(Unreachable, match="TLS"):  # It was connected to, and speaks no TLS.
        await send(target, b"{}", {}, "anna")
    with pytest.raises(Refused):
        await send(target, b"{}", {}, "anna")
    with pytest.raises(Unreachable, match="TLS"):
        await send(target, b"{}", {}, "anna")
    assert names.asked == ["rebind.example"] * 3


async def test_of_many_addresses_only_those_allowed_are_tried(receiver):
    """A name may have a good one among others."""
    send = outbound(["10.0.0.1", "192.168.0.1", "127.0.0.1"], allowed=["127.0.0.1"])
    with pytest.raises(Unreachable, match="TLS"):
        await send(url(receiver, "many.example", "https"), b"{}", {}, "anna")


async def test_http_is_for_allowed_hosts_only(receiver):
    """It is checked again at every attempt: the setting may have changed since the door."""
    with pytest.raises(Refused, match="begin with https://"):
        await outbound(allowed=[])(url(receiver), b"{}", {}, "anna")


async def test_no_proxy_is_asked(receiver, monkeypatch):
    """A proxy would look the name up by itself, and nobody would check what it finds."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert (await outbound()(url(receiver), b"{}", {}, "anna")).status == 204


async def test_cookies_are_not_kept(receiver):
    """One receiver's are no business of the next attempt."""

    def answer():
        response = web.Response()
        response.set_cookie("seen", "1")
        return response

    receiver.answer = answer
    send = outbound()
    for _ in range(2):
        await send(url(receiver), b"{}", {}, "anna")
    assert ["Cookie" in headers for headers, _ in receiver.seen] == [False, False]


def closed_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


async def test_nobody_at_home_is_said():
    """Another attempt may find somebody."""
    with pytest.raises(Unreachable, match="could not be connected to"):
        await outbound()(f"http://{HOST}:{closed_port()}/", b"{}", {}, "anna")


async def test_a_name_without_an_address_is_said(receiver):
    """A name server may only be away for a while."""
    with pytest.raises(Unreachable, match="no address"):
        await outbound([])(url(receiver), b"{}", {}, "anna")


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"", "closed the connection"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "not answer in HTTP"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000 + b"\r\n\r\n", "not answer in HTTP"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", "closed the connection"),
    ],
)
async def test_what_is_no_answer_is_said(said, why):
    """In our words: theirs may be anything."""

    async def handle(reader, writer):
        await reader.readuntil(b"{}")
        writer.write(said)
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(handle, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(Unreachable, match=why):
            await outbound()(f"http://{HOST}:{port}/", b"{}", {}, "anna")


async def test_a_receiver_that_says_nothing_is_given_up():
    """One that takes the body and keeps silent holds us for a bounded time."""
    done = asyncio.Event()

    async def handle(_, writer):
        await done.wait()
        writer.close()

    async with await asyncio.start_server(handle, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(Unreachable, match="in time"):
            await outbound(attempt_seconds=0.05)(f"http://{HOST}:{port}/", b"{}", {}, "anna")
        done.set()


async def test_an_endless_body_is_not_read():
    """The status is all that is wanted."""

    async def endless(request):
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(b"x" * 65_536)
        finally:
            hung_up.set()

    hung_up = asyncio.Event()

    app = web.Application()
    app.router.add_post("/", endless)
    async with TestServer(app) as server:
        answer = await outbound()(f"http://{HOST}:{server.port}/", b"{}", {}, "anna")
        await hung_up.wait()
    assert answer == Answer(status=200)


@pytest.fixture
def certificate(tmp_path):
    """Make a certificate for HOST that nobody vouches for."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("There is no openssl command here.")
    key, made = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        [
            *(openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "2", "-subj", f"/CN={HOST}", "-addext"),
            *(f"subjectAltName=DNS:{HOST}", "-keyout", str(key), "-out", str(made)),
        ],
        check=True,
        capture_output=True,
        timeout=60,
    )
    return key, made


async def test_a_certificate_must_be_good_and_of_that_name(certificate):
    """Unknown or another's: nothing is sent. With both right it is."""
    key, made = certificate
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made, key)
    seen = []

    async def handle(request):
        seen.append(await request.read())
        return web.Response()

    app = web.Application()
    app.router.add_post("/", handle)
    known = ssl.create_default_context(cafile=made)
    server = TestServer(app, scheme="https")
    await server.start_server(ssl=context)
    target = f"https://{HOST}:{server.port}/"
    with pytest.raises(Unreachable, match="certificate"):
        await outbound()(target, b"{}", {}, "anna")
    with pytest.raises(Unreachable, match="certificate"):
        await outbound(allowed=["other.internal"], tls=known)(
            target.replace(HOST, "other.internal"), b"{}", {}, "anna"
        )
    assert seen == []
    assert await outbound(tls=known)(target, b"{}", {}, "anna") == Answer(status=200)
    await server.close()
