"""The log of a whole service when nobody reads it: nothing waits for a log line."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import psutil
import pytest

from tests.disasters.conftest import POLL_SECONDS, Client
from tests.support.service_process import WAIT_SECONDS

ROOT = Path(__file__).parents[2]
HOLDS = 1 << 20
"""Bytes in the queue of log lines; the pipe behind it takes 64 KiB more."""

CHATTY = {
    "LIGHT_ENTRY": "obedient",
    "LIGHT_DELAYS": "0",
    "LOG_LEVEL": "DEBUG",
    "ALLOW_DEBUGGER": "true",
}


@contextmanager
def serving(folder: Path, stderr: int, shell: str = "") -> Iterator[subprocess.Popen[bytes]]:
    """Start a light service with this standard error, and end it by its own id."""
    command = [sys.executable, "-m", "tests.disasters.light", "serve"]
    process = subprocess.Popen(
        ["/bin/sh", "-c", f'exec "$@" {shell}', "sh", *command],
        env={**os.environ, **CHATTY, "API_PORT": "0", "DATA_DIR": str(folder)},
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=stderr,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait(WAIT_SECONDS)


@pytest.fixture
async def asked():
    """Return what opens a client of a process whose log says nothing; it waits until it listens."""
    sessions = []

    async def opened(process: subprocess.Popen[bytes]) -> Client:
        async with asyncio.timeout(WAIT_SECONDS):
            while not (found := _listening(process)):
                assert process.poll() is None
                await asyncio.sleep(POLL_SECONDS)
        session = aiohttp.ClientSession(
            f"http://127.0.0.1:{found[0]}", timeout=aiohttp.ClientTimeout(total=WAIT_SECONDS)
        )
        sessions.append(session)
        client = Client(session)
        await client.until_ready()
        return client

    yield opened
    for session in sessions:
        await session.close()


def _listening(process: subprocess.Popen[bytes]) -> list[int]:
    connections = psutil.Process(process.pid).net_connections("tcp")
    return [each.laddr.port for each in connections if each.status == psutil.CONN_LISTEN]


def _standard_streams(process: subprocess.Popen[bytes]) -> list[str]:
    return [str(Path(f"/proc/{process.pid}/fd/{number}").readlink()) for number in (0, 1, 2)]


async def _exit_code(process: subprocess.Popen[bytes]) -> int:
    process.send_signal(signal.SIGTERM)
    return await asyncio.to_thread(process.wait, WAIT_SECONDS)


async def _answers(client: Client, count: int) -> set[int]:
    return {(await client.generate())[0] for _ in range(count)}


async def test_a_log_that_nobody_reads_holds_up_nothing(tmp_path, asked):
    """Requests and probes are answered, what is dropped is counted, and SIGTERM ends it."""
    reading, writing = os.pipe()
    with serving(tmp_path, writing) as process:
        os.close(writing)
        client = await asked(process)
        # Both of its processes write more than queue and pipe take.
        assert (await client.generate("chatters"))[0] == 200
        assert await _answers(client, 20) == {200}
        assert (await client.get("/health/live"))[0] == 200
        assert await client.metric("sd_log_lines_dropped_total") > 0
        assert await _exit_code(process) == 0
    os.close(reading)


async def test_a_reader_that_comes_back_is_told_of_the_gap(tmp_path, asked):
    """The lines from before it, how many are missing, and then all lines again."""
    reading, writing = os.pipe()
    with serving(tmp_path, writing) as process:
        os.close(writing)
        client = await asked(process)
        assert (await client.generate("chatters"))[0] == 200
        assert await client.metric("sd_log_lines_dropped_total") > 0
        with os.fdopen(reading, "rb") as lines:
            gap = await asyncio.to_thread(lambda: next(x for x in lines if b"log_lines_drop" in x))
            assert b'"lines": ' in gap
            reader = asyncio.create_task(asyncio.to_thread(lines.read))
            assert (await client.generate())[0] == 200
            assert await _exit_code(process) == 0
            rest = await reader
    assert rest.count(b"job_queued") == 1
    assert b"service_stopped" in rest


async def test_a_reader_that_died_ends_nothing(tmp_path, asked):
    """Lines that cannot be written are dropped one by one, and nothing spins."""
    reading, writing = os.pipe()
    with serving(tmp_path, writing) as process:
        os.close(writing)
        client = await asked(process)
        os.close(reading)
        assert (await client.generate("chatters"))[0] == 200
        assert await _answers(client, 3) == {200}
        assert await client.metric("sd_log_lines_dropped_total") > 0
        assert await _exit_code(process) == 0


@pytest.mark.parametrize("closed", ["2>&-", "<&- >&-", "<&- >&- 2>&-"])
async def test_closed_standard_streams_are_no_place_for_sockets(tmp_path, asked, closed):
    """The service runs as with /dev/null, which is what it finds there."""
    with (tmp_path / "log").open("wb") as log, serving(tmp_path, log.fileno(), closed) as process:
        client = await asked(process)
        assert (await client.generate("chatters"))[0] == 200
        assert not [target for target in _standard_streams(process) if "socket" in target]
        assert await _exit_code(process) == 0
