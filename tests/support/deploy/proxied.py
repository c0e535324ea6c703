"""Services over fake engines with nginx in front, and clients of it."""

import re
from contextlib import AsyncExitStack, asynccontextmanager

import aiohttp

from tests.support.deploy.nginx import nginx
from tests.support.job_service import BODY, service
from tests.support.simulation.fake_engine import FakeEngine

PROBLEM = "application/problem+json"
PATIENCE = 30.0


@asynccontextmanager
async def two(folder, *engines, changed=None, **settings):
    """Run services over these engines with nginx in front; hand out nginx and a client of it."""
    async with AsyncExitStack() as stack:
        ports = []
        for number, engine in enumerate(engines or (FakeEngine(), FakeEngine())):
            data = folder / f"data-{number}"
            behind = await stack.enter_async_context(service(data, engine, **settings))
            ports.append(behind.server.port)
        proxy = await stack.enter_async_context(nginx(ports, **(changed or {})))
        yield proxy, await stack.enter_async_context(client_of(proxy))


@asynccontextmanager
async def client_of(proxy, address="127.0.0.1"):
    connector = aiohttp.TCPConnector(ssl=proxy.trust, local_addr=(address, 0), limit=0)
    timeout = aiohttp.ClientTimeout(total=PATIENCE)
    async with aiohttp.ClientSession(proxy.url, connector=connector, timeout=timeout) as client:
        yield client


async def posted(client, path="/generate", body=BODY, **more):
    """Post; return status, headers and what the answer holds."""
    async with client.post(path, json=body, **more) as answer:
        assert answer.headers["Strict-Transport-Security"]
        return answer.status, answer.headers, await answer.json(content_type=None)


async def until_waiting(client):
    """Wait until the service has a request in line; asking is what waits."""
    while True:
        async with client.get("/metrics") as answer:
            if re.search(r"^sd_queue_depth(?:{.*})? 1(?:\.0)?$", await answer.text(), re.MULTILINE):
                return
