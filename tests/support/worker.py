"""Programs of a drill in processes of their own, told what to do line by line."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import psutil

END_SECONDS = 40.0
LONGEST_LINE = 2**26


class Cpu:
    """A process whose CPU seconds are measured."""

    def __init__(self, pid: int | None = None) -> None:
        self._measured = psutil.Process(pid)

    @property
    def cpu(self) -> float:
        times = self._measured.cpu_times()
        return float(times.user + times.system)


class Worker(Cpu):
    """One started program."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        super().__init__(process.pid)
        self._process = process

    def say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())

    async def end(self) -> str:
        """Close its input and return what it says to that; raise RuntimeError if it fails."""
        async with asyncio.timeout(END_SECONDS):
            said, _ = await self._process.communicate(b"")  # That closes its input.
        if self._process.returncode:
            raise RuntimeError(f"{self._process.pid} ended with {self._process.returncode}")
        return said.decode()


@asynccontextmanager
async def working(module: str, *words: str) -> AsyncIterator[Worker]:
    """Run ``python -m module`` and hand it out when it is ready; end it by its id."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, *words),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=LONGEST_LINE,
        start_new_session=True,  # Ctrl-C reaches the drill alone.
    )
    try:
        assert process.stdout is not None
        if await process.stdout.readline() != b"ready\n":
            raise RuntimeError(f"{module} did not start")
        yield Worker(process)
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
