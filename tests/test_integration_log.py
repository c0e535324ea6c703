"""The whole service with the real engine, and a log that nobody reads."""

import asyncio
import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import aiohttp
import pytest

from tests.support.service_process import WAIT_SECONDS

SMALL = {"prompt": "A cozy cabin in the woods", "width": 256, "height": 256, "steps": 2}
SMALLEST_PIPE = 4096
"""Bytes; full after a dozen lines."""

SETTINGS = {
    "API_PORT": "0",
    "HF_HUB_OFFLINE": "1",
    "LOG_FORMAT": "json",
    "LOG_LEVEL": "DEBUG",
    "OMP_WAIT_POLICY": "PASSIVE",
}


@pytest.fixture
def started(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], BinaryIO]]:
    """Start a service; return it and the end of its log."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, SMALLEST_PIPE)
    process = subprocess.Popen(
        [sys.executable, "-m", "service", "serve"],
        env={**os.environ, **SETTINGS, "DATA_DIR": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        stderr=writing,
    )
    os.close(writing)
    try:
        with os.fdopen(reading, "rb") as lines:
            yield process, lines
    finally:
        process.kill()
        process.wait(WAIT_SECONDS)


@pytest.mark.long
async def test_requests_probes_and_sigterm_wait_for_no_reader_of_the_log(started):
    """All are answered, and the process ends in good order."""
    process, lines = started
    url = await asyncio.to_thread(_url_once_loaded, lines)
    patience = aiohttp.ClientTimeout(total=WAIT_SECONDS)
    async with aiohttp.ClientSession(url, timeout=patience) as client:
        for seed in range(4):
            async with client.post("/generate", json={**SMALL, "seed": seed}) as answer:
                assert answer.status == 200
            for path, status in (("/health/live", 200), ("/health/ready", 200), ("/x", 404)):
                async with client.get(path) as answer:
                    assert answer.status == status
    process.terminate()
    assert await asyncio.to_thread(process.wait, WAIT_SECONDS) == 0


def _url_once_loaded(lines: BinaryIO) -> str:
    """Read the log until the model is loaded, and no further; return where the service listens."""
    url = ""
    for line in lines:
        found = json.loads(line)
        url = str(found.get("url", url))
        if found["event"] == "model_loaded":
            return url
    raise AssertionError("the service ended before its model was loaded")
