"""Processes that the drill starts, and ends by their ids whatever happens."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import psutil

END_SECONDS = 15.0


class Child:
    """One started program; what it says goes to a file."""

    def __init__(self, process: asyncio.subprocess.Process, output: Path) -> None:
        self.process = process
        self.output = output
        self._family: dict[int, psutil.Process] = {}

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.process.returncode is None

    def family(self) -> list[psutil.Process]:
        """Return the processes that it started, those that have lost it as a parent too."""
        with contextlib.suppress(psutil.NoSuchProcess):
            for each in psutil.Process(self.pid).children(recursive=True):
                self._family.setdefault(each.pid, each)
        return [each for each in self._family.values() if each.is_running()]

    def tail(self, lines: int = 15) -> str:
        """Return the last lines that it said."""
        return "\n".join(self.output.read_text(errors="replace").splitlines()[-lines:])

    async def kill(self) -> None:
        """End it at once, as the kernel would when memory runs out; its children notice."""
        self.family()
        if self.running:
            self.process.kill()
        await self.process.wait()

    async def end(self) -> None:
        """Ask it to end, then insist; then end what is left of what it started."""
        self.family()
        if self.running:
            # A stopped process takes no SIGTERM before it goes on.
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            try:
                await asyncio.wait_for(self.process.wait(), END_SECONDS)
            except TimeoutError:
                self.process.kill()
                await self.process.wait()
        for each in self.family():  # psutil compares start times: a reused id is another one.
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()


@asynccontextmanager
async def started(
    command: Sequence[str | Path],
    output: Path,
    environment: Mapping[str, str] | None = None,
) -> AsyncIterator[Child]:
    """Start a program in a session of its own, so that Ctrl-C reaches the drill alone."""
    with output.open("ab") as sink:
        process = await asyncio.create_subprocess_exec(
            *map(str, command),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=sink,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )
    child = Child(process, output)
    try:
        yield child
    finally:
        # Also while being cancelled: the end itself is short and must not be cut off.
        await asyncio.shield(asyncio.create_task(child.end()))
