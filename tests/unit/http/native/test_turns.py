"""API keys that others cannot keep waiting: a whole service with a careless key and another."""

import asyncio
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from service.config.credentials import Keys
from service.http.middleware import auth
from service.http.state import METRICS
from service.system.executors import EXECUTORS, NAMES
from tests.support.job_service import BODY, ask, events, service, until

CARELESS, ANNA = "0123456789abcdef" * 2, "fedcba9876543210" * 2
KEYS = f"careless:{CARELESS},anna:{ANNA}"
SECONDS = 30.0
"""Bound of every wait: reached only when something is broken."""


def by(secret: str) -> dict[str, dict[str, str]]:
    return {"headers": {"X-API-Key": secret}}


class Forbidden(ThreadPoolExecutor):
    """A default executor that nothing may use."""

    def __init__(self) -> None:
        super().__init__(1)
        self.used: list[object] = []

    def submit(self, function, /, *args, **kwargs):
        """Keep what it was, and refuse."""
        self.used.append(function)
        raise AssertionError(f"{function} waits in the default executor")


@pytest.fixture
async def forbidden():
    """Fail what uses asyncio's default executor."""
    executor = Forbidden()
    asyncio.get_running_loop().set_default_executor(executor)
    yield
    assert executor.used == []


class Receiver:
    """Takes webhooks on the loopback."""

    def __init__(self) -> None:
        self.came: asyncio.Queue[str] = asyncio.Queue()
        app = web.Application()
        app.router.add_post("/{name}", self.handle)
        self.server = TestServer(app)

    async def handle(self, request):
        self.came.put_nowait(request.match_info["name"])
        return web.Response()

    def url(self, name: str, host: str = "localhost") -> str:
        return f"http://{host}:{self.server.port}/{name}"

    async def next(self) -> str:
        async with asyncio.timeout(SECONDS):
            return await self.came.get()


@pytest.fixture
async def receiver():
    made = Receiver()
    async with made.server:
        yield made


@asynccontextmanager
async def silent_hosts():
    """Take connections at every loopback address, and never answer; yield the port."""
    with socket.create_server(("0.0.0.0", 0), backlog=500) as listener:  # noqa: S104 - 127.0.1.x
        yield listener.getsockname()[1]


async def careless_jobs(client, urls):
    """Hand jobs in with these webhooks, and cancel them: each is told at once."""
    for url in urls:
        order = BODY | {"webhook": url}
        job = (await ask(client, "POST", "/jobs", 202, json=order, **by(CARELESS)))["id"]
        await ask(client, "DELETE", f"/jobs/{job}", 200, **by(CARELESS))


@pytest.mark.usefixtures("forbidden")
async def test_the_main_paths_leave_the_default_executor_alone(receiver, tmp_path, monkeypatch):
    """Answers, jobs, images, events, webhooks, keys and pages."""
    monkeypatch.setattr(auth, "REFRESH_SECONDS", 0.01)
    keys = tmp_path / "keys"
    keys.write_text(KEYS.replace(",", "\n"))
    made = service(tmp_path / "data", api_keys_file=str(keys), webhook_hosts="localhost")
    async with made as client:
        for media_type in ("application/json", "image/png", "image/webp"):
            headers = {"X-API-Key": ANNA, "Accept": media_type, "Idempotency-Key": media_type}
            for _ in range(2):
                async with client.post("/generate", json=BODY, headers=headers) as answer:
                    assert answer.status == 200, await answer.text()
            headers.pop("Idempotency-Key")
            async with client.post("/generate", json=BODY, headers=headers) as answer:
                assert answer.status == 200
        order = BODY | {"webhook": receiver.url("done")}
        job = (await ask(client, "POST", "/jobs", 202, json=order, **by(ANNA)))["id"]
        client.session.headers["X-API-Key"] = ANNA
        assert (await events(client, job, query="?preview=true"))[-1]["event"] == "finished"
        assert await receiver.next() == "done"
        for wanted in ("png", "webp", "jpeg"):
            async with client.get(f"/jobs/{job}/image?format={wanted}") as answer:
                assert answer.status == 200
        for path in ("/docs", "/docs/swagger-ui.css", "/openapi.json", "/health", "/metrics"):
            async with client.get(path) as answer:
                assert answer.status == 200
        keys.write_text(f"bert:{CARELESS}\n")
        async with asyncio.timeout(SECONDS):
            while (await client.get("/jobs")).status != 401:
                pass


async def test_names_that_no_server_answers_for_delay_nobody_else(receiver, tmp_path, monkeypatch):
    """Others get their images, events and webhooks while one key's lookups hang."""
    over, real = threading.Event(), socket.getaddrinfo

    def getaddrinfo(host, *args, **kwargs):
        if str(host).endswith(".example"):
            over.wait(SECONDS)
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return real(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    try:
        async with (
            service(tmp_path, api_keys=Keys(KEYS), webhook_hosts="localhost") as client,
            asyncio.timeout(SECONDS),
        ):
            await careless_jobs(client, [f"https://h{n}.example/" for n in range(30)])
            for _ in range(5):
                await ask(client, "POST", "/generate", 200, json=BODY, **by(ANNA))
            order = BODY | {"webhook": receiver.url("done")}
            job = (await ask(client, "POST", "/jobs", 202, json=order, **by(ANNA)))["id"]
            assert await receiver.next() == "done"
            await until(client, job, "succeeded", **by(ANNA))
            async with client.get(f"/jobs/{job}/image?format=webp", **by(ANNA)) as answer:
                assert answer.status == 200
            assert 0 < NAMES.busy <= NAMES.limits.each
            async with client.get("/metrics") as answer:
                told = await answer.text()
            assert f'sd_executor_busy_threads{{executor="names"}} {NAMES.busy}.0' in told
            for each in EXECUTORS:
                assert f'sd_executor_waiting_calls{{executor="{each.name}"}}' in told
    finally:
        over.set()


async def test_silent_receivers_of_one_key_do_not_delay_anothers_webhook(receiver, tmp_path):
    """160 deliveries to 40 hosts that take connections and say nothing."""
    async with (
        silent_hosts() as port,
        service(tmp_path, api_keys=Keys(KEYS), webhook_hosts="127.0.0.0/8") as client,
        asyncio.timeout(SECONDS),
    ):
        await careless_jobs(client, [f"http://127.0.1.{1 + n % 40}:{port}/" for n in range(160)])
        for name in ("first", "second"):
            order = BODY | {"webhook": receiver.url(name, "127.0.0.1")}
            await ask(client, "POST", "/jobs", 202, json=order, **by(ANNA))
            assert client.app[METRICS].registry.get_sample_value("sd_webhooks_waiting") > 100
            began = asyncio.get_running_loop().time()
            assert await receiver.next() == name
            assert asyncio.get_running_loop().time() - began < 5  # An attempt may take 15 s.
