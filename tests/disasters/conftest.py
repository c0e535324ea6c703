"""Services that disasters happen to, and how they are asked."""

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import aiohttp
import pytest

from tests.support.service_process import WAIT_SECONDS, ServiceProcess, ending

IMAGE = {"prompt": "a cat", "width": 256, "height": 256, "steps": 3, "seed": 1}
POLL_SECONDS = 0.05
QUICK = "0,0.05,0.05,0.05,0.5"
"""Seconds before the 1st, 2nd, ... restart in a row: as the real ones, but short."""


class LightService(ServiceProcess):
    """A service whose engine needs no torch; its prompts are orders, see ``children``."""

    module = "tests.disasters.light"

    async def line(self, event: str, *, count: int = 1) -> dict[str, Any]:
        """Wait for a log line without holding up the event loop."""
        return await asyncio.to_thread(self.logged, event, count=count)


class Client:
    """Asks one service."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.session = session

    async def generate(self, prompt: str = "a cat", **fields: Any) -> tuple[int, dict[str, Any]]:
        body = {**IMAGE, "prompt": prompt, **fields}
        async with self.session.post("/generate", json=body) as answer:
            found = await answer.json(content_type=None)
            return answer.status, {**found, "retry_after": answer.headers.get("Retry-After")}

    async def submit(self, prompt: str = "a cat", **fields: Any) -> tuple[int, dict[str, Any]]:
        body = {**IMAGE, "prompt": prompt, **fields}
        async with self.session.post("/jobs", json=body) as answer:
            found = await answer.json(content_type=None)
            return answer.status, {**found, "retry_after": answer.headers.get("Retry-After")}

    async def accepted(self, prompt: str = "a cat", **fields: Any) -> str:
        """Submit a job that must be accepted; return its id."""
        status, body = await self.submit(prompt, **fields)
        assert status == 202, body
        return str(body["id"])

    async def get(self, path: str) -> tuple[int, dict[str, Any]]:
        async with self.session.get(path) as answer:
            return answer.status, await answer.json(content_type=None)

    async def job(self, job_id: str) -> dict[str, Any]:
        status, body = await self.get(f"/jobs/{job_id}")
        assert status == 200, body
        return body

    async def ended(self, job_id: str) -> dict[str, Any]:
        """Wait until a job is over."""
        while True:
            body = await self.job(job_id)
            if body["state"] not in ("queued", "running"):
                return body
            await asyncio.sleep(POLL_SECONDS)

    async def image(self, job_id: str) -> bytes:
        async with self.session.get(f"/jobs/{job_id}/image") as answer:
            assert answer.status == 200
            return await answer.read()

    async def until_ready(self, ready: bool = True) -> dict[str, Any]:
        """Wait until the service is ready, or is not; return what it says."""
        while True:
            status, body = await self.get("/health/ready")
            if (status == 200) is ready:
                return body
            await asyncio.sleep(POLL_SECONDS)

    async def metric(self, name: str) -> float:
        """Return the sum of a metric's series that have these labels, maybe others as well."""
        metric, *labels = re.split(r"[{},]+", name.rstrip("}"))
        async with self.session.get("/metrics") as answer:
            lines = (await answer.text()).splitlines()
        found = [
            float(line.split()[-1])
            for line in lines
            if re.match(rf"{metric}[{{ ]", line) and all(each in line for each in labels)
        ]
        assert found, name
        return sum(found)


@contextmanager
def light_service(*prefix: str, **settings: object) -> Iterator[LightService]:
    """Start a light service, by a command if one is given, and end it by its own id."""

    class Prefixed(LightService):
        pass

    Prefixed.prefix = prefix
    with ending(
        Prefixed(**({"LIGHT_ENTRY": "obedient", "LIGHT_DELAYS": QUICK} | settings))
    ) as service:
        yield service


@pytest.fixture
def light():
    """Return what starts light services."""
    return light_service


@pytest.fixture
async def client_of():
    """Return what opens clients; they are closed at the end."""
    sessions = []

    async def opened(service: ServiceProcess, **more: Any) -> Client:
        url = await asyncio.to_thread(lambda: service.url)
        session = aiohttp.ClientSession(
            url, timeout=aiohttp.ClientTimeout(total=WAIT_SECONDS), **more
        )
        sessions.append(session)
        return Client(session)

    yield opened
    for session in sessions:
        await session.close()
