"""Limits of the system that a whole service runs into: files, and with them processes."""

import asyncio
import os
import resource
import signal
from pathlib import Path

import aiohttp

WAIT_SECONDS = 30.0


def exhaust_descriptors(pid: int) -> None:
    """Let a process open nothing more than it has: the limit is for the number of a file."""
    hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)[1]
    looks = [{int(path.name) for path in Path(f"/proc/{pid}/fd").iterdir()} for _ in range(5)]
    taken = set.intersection(*looks)  # Some are open for a moment only.
    free = next(number for number in range(hard) if number not in taken)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (free, hard))


def allow_descriptors(pid: int) -> None:
    """Let a process open as many files as it may."""
    hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)[1]
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (hard, hard))


async def test_without_file_descriptors_connections_wait_and_are_served_later(light, client_of):
    """Nobody can come in; who is in is served; with descriptors again all come in."""
    with light() as service:
        client = await client_of(service)
        await client.until_ready()
        exhaust_descriptors(service.process.pid)
        stranger = asyncio.create_task(_health(service.url))
        await service.line("accept_failed")
        assert not stranger.done()
        assert (await client.get("/health"))[0] == 200
        assert (await client.generate())[0] == 200
        allow_descriptors(service.process.pid)
        assert await stranger == 200
        # One line a second, not one for every place of the backlog.
        assert len([line for line in service.log if line["event"] == "accept_failed"]) < 10
        assert len(service.output) < 200
        assert (await client.generate())[0] == 200


async def test_without_file_descriptors_a_new_engine_is_waited_for(light, client_of):
    """An engine cannot be started; the service lives, and starts it when it can."""
    with light() as service:
        client = await client_of(service)
        await client.until_ready()
        job = await client.accepted("stays")
        await service.line("job_started")
        exhaust_descriptors(service.process.pid)
        # The dead engine's pipe makes room for two; the next one's needs more.
        os.kill(service.engine_pid, signal.SIGKILL)
        await service.line("engine_start_failed")
        assert (await client.get("/health"))[0] == 200
        assert (await client.get("/health/ready"))[0] == 503
        allow_descriptors(service.process.pid)
        await service.line("model_loaded", count=2)
        async with client.session.delete(f"/jobs/{job}") as answer:
            assert answer.status == 200
        assert (await client.generate())[0] == 200


async def _health(url: str) -> int:
    timeout = aiohttp.ClientTimeout(total=WAIT_SECONDS)
    async with (
        aiohttp.ClientSession(url, timeout=timeout) as session,
        session.get("/health") as answer,
    ):
        return answer.status
