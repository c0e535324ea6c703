"""A service that keeps jobs, over an engine whose steps the test decides, and its client."""

import asyncio
from contextlib import asynccontextmanager

from aiohttp.test_utils import TestClient, TestServer

from service.app import create_app
from service.config.table import Config
from tests.support.simulation.fake_engine import FakeEngine

BODY = {"prompt": "a cat", "width": 256, "height": 256, "steps": 2, "seed": 7}


@asynccontextmanager
async def service(folder, engine=None, **settings):
    """Run a service that keeps its jobs in ``folder``."""
    config = Config(data_dir=str(folder), shutdown_timeout_seconds=0.01, **settings)
    async with TestClient(TestServer(create_app(config, engine or FakeEngine()))) as client:
        yield client


async def ask(client, method, path, status, **more):
    """Ask, check the status, and return what the answer holds."""
    async with client.request(method, path, **more) as answer:
        assert answer.status == status, await answer.text()
        return await answer.json()


async def until(client, job, *states, **more):
    """Return the job as soon as it is in one of ``states``."""
    async with asyncio.timeout(20):
        while True:  # Asking is what waits.
            found = await ask(client, "GET", f"/jobs/{job}", 200, **more)
            if found["state"] in states:
                return found


async def events(client, job, seen="", query=""):
    """Follow a job to its end and return its events."""
    headers = {"Last-Event-ID": seen}
    async with client.get(f"/jobs/{job}/events{query}", headers=headers) as answer:
        assert answer.content_type == "text/event-stream"
        blocks = (await answer.text()).strip().split("\n\n")
    return [dict(line.split(": ", 1) for line in block.splitlines()) for block in blocks]
