"""Signals, and ends that a hanging thread cannot hold up."""

import asyncio
import os
import signal
import socket
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import psutil
import pytest

from tests.disasters.conftest import LightService
from tests.support.service_process import WAIT_SECONDS, ending

ALICE = "5f0c2f8e9f1b4b7f8d3a61c9e2b7d405"
BOB = "2b7d4055f0c2f8e9f1b4b7f8d3a61c9e"


class HangingService(LightService):
    """A light service that hangs in the place that is named."""

    module = "tests.disasters.hanging"


@contextmanager
def hanging(place: str, **settings: object):
    """Start one whose shutdown time is over at once."""
    with ending(
        HangingService(
            LIGHT_ENTRY="obedient",
            LIGHT_DELAYS="0",
            LIGHT_HANGS=place,
            SHUTDOWN_TIMEOUT_SECONDS="0",
            **settings,
        )
    ) as service:
        yield service


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """Return a file with the key of alice."""
    path = tmp_path / "keys"
    path.write_text(f"alice:{ALICE}\n")
    return path


async def status_of(url: str, secret: str) -> int:
    async with (
        aiohttp.ClientSession(headers={"X-API-Key": secret}) as session,
        session.get(f"{url}/jobs") as answer,
    ):
        return answer.status


async def test_a_thread_that_follows_the_keys_and_hangs_is_said_and_ends_with_the_service(keys):
    """The file system of the keys is gone: keys stay, the log says so, SIGTERM ends the process."""
    with hanging("keys", API_KEYS_FILE=keys) as service:
        line = await service.line("keys_file_does_not_answer")
        assert line["path"] == str(keys)
        assert await status_of(service.url, ALICE) == 200
        service.process.terminate()
        await service.line("service_stopped")
        assert await asyncio.to_thread(service.process.wait, WAIT_SECONDS) == 0


@pytest.mark.long
async def test_a_job_store_that_hangs_holds_up_no_end():
    """After the deadline, with an exit code that says so; the engine ends, too."""
    with hanging("store") as service:
        await service.line("engine_started")
        engine = psutil.Process(service.engine_pid)
        service.process.terminate()
        assert await asyncio.to_thread(service.process.wait, WAIT_SECONDS) == 1
        assert (await service.line("shutdown_forced"))["code"] == 1
        await asyncio.to_thread(engine.wait, WAIT_SECONDS)


async def test_an_event_loop_that_hangs_holds_up_no_end():
    """Another thread hears the signal."""
    with hanging("loop") as service:
        await service.line("engine_started")
        engine = psutil.Process(service.engine_pid)
        async with aiohttp.ClientSession(await asyncio.to_thread(lambda: service.url)) as session:
            asking = asyncio.create_task(session.get("/health/live"))
            await service.line("hangs")
            service.process.terminate()
            assert await asyncio.to_thread(service.process.wait, WAIT_SECONDS) == 1
            await asyncio.gather(asking, return_exceptions=True)
        await service.line("shutdown_forced")
        await asyncio.to_thread(engine.wait, WAIT_SECONDS)


async def test_a_pipe_in_place_of_the_keys_is_refused_and_the_old_keys_stay(keys, light):
    """Opening it would wait for a writer; a file in its place is read again."""
    with light(API_KEYS_FILE=keys) as service:
        url = await asyncio.to_thread(lambda: service.url)
        keys.unlink()
        os.mkfifo(keys)
        line = await service.line("keys_not_read")
        assert line["reason"] == "is a named pipe, and must be a regular file"
        assert await status_of(url, ALICE) == 200
        keys.unlink()
        keys.write_text(f"bob:{BOB}\n")
        await service.line("keys_read")
        assert (await status_of(url, BOB), await status_of(url, ALICE)) == (200, 401)
        service.process.terminate()
        assert await asyncio.to_thread(service.process.wait, WAIT_SECONDS) == 0


async def test_a_hang_up_reads_the_keys_again_and_ends_nothing(keys, light, client_of):
    """Also one that reaches the engine, as when a terminal is closed."""
    with light(API_KEYS_FILE=keys) as service:
        client = await client_of(service, headers={"X-API-Key": ALICE})
        await client.until_ready()
        for pid in (service.process.pid, service.engine_pid):
            os.kill(pid, signal.SIGHUP)
        line = await service.line("keys_read")
        assert (line["added"], line["revoked"]) == ([], [])
        assert (await client.generate())[0] == 200
        assert [line for line in service.log if line["event"] == "engine_exited"] == []


async def test_a_hang_up_without_a_file_of_keys_is_said(light, client_of):
    """There is nothing to read again, and the service goes on."""
    with light() as service:
        client = await client_of(service)
        service.process.send_signal(signal.SIGHUP)
        await service.line("reload_without_keys_file")
        await client.until_ready()
        assert (await client.generate())[0] == 200


async def test_a_client_that_does_not_read_its_answer_holds_up_no_end(light, client_of):
    """It is cut off when the shutdown time is over, and the end is a good one."""
    with light(SHUTDOWN_TIMEOUT_SECONDS="5", SEND_TIMEOUT_SECONDS="600") as service:
        client = await client_of(service)
        await client.until_ready()
        with socket.socket() as unread:
            unread.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            port = int(service.url.rpartition(":")[2])
            await asyncio.to_thread(unread.connect, ("127.0.0.1", port))
            asked = b"GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: localhost\r\n\r\n"
            unread.sendall(asked * 10)
            assert await asyncio.to_thread(unread.recv, 1) == b"H"
            service.process.terminate()
            assert await asyncio.to_thread(service.process.wait, WAIT_SECONDS) == 0
        assert "shutdown_forced" not in [line["event"] for line in service.log]
