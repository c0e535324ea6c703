"""Programs that tests and drills start, and drills themselves, ended whatever happens."""

import asyncio
import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import psutil

from tests.support.wait import TooLateError

WAIT_SECONDS = 120.0
"""Bound of every wait: reached only when something is broken."""

END_SECONDS = 60.0
INTERRUPTED = 130
TRACKER = "multiprocessing.resource_tracker"
"""Python's own child, of which there is one for the life of a process."""

Value = TypeVar("Value")


class Program:
    """One started program; what it says is kept in ``output``, and in a file if there is one."""

    process: "subprocess.Popen[str]"
    session = True
    """Whether it gets a session of its own: Ctrl-C reaches the one who started it alone."""

    def __init__(self, file: Path | None = None) -> None:
        self.output: list[str] = []
        self._file = file
        self._family: dict[int, psutil.Process] = {}
        self._more = threading.Condition()

    def launch(
        self, command: Sequence[str | Path], environment: Mapping[str, str] | None = None
    ) -> None:
        """Start it."""
        self._family = {}
        self.process = subprocess.Popen(
            [*map(str, command)],
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=self.session,
        )
        self._reader = threading.Thread(target=self._read, args=[self.process], daemon=True)
        self._reader.start()

    def _read(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None
        for line in process.stdout:
            with self._more:
                self._hear(line)
                self._more.notify_all()
        with self._more:
            self._more.notify_all()

    def _hear(self, line: str) -> None:
        self.output.append(line)
        if self._file is not None:
            with self._file.open("a", encoding="utf-8") as file:
                file.write(line)

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def family(self) -> list[psutil.Process]:
        """Return the processes that it started, those that have lost it as a parent too."""
        with suppress(psutil.NoSuchProcess):
            if self.running:  # The id of one that has ended may be another's by now.
                for each in psutil.Process(self.pid).children(recursive=True):
                    self._family.setdefault(each.pid, each)
        return [each for each in self._family.values() if each.is_running()]

    def tail(self, lines: int = 15) -> str:
        """Return the last lines that it said."""
        return "".join(self.output[-lines:])

    def kill(self) -> None:
        """End it at once, as the kernel would when memory runs out; its children notice."""
        self.family()
        self.process.kill()
        self.process.wait(WAIT_SECONDS)

    def end(self) -> int:
        """Ask it to end, then insist; then end what is left of what it started."""
        self.family()
        if self.running:
            # A stopped process takes no SIGTERM before it goes on.
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(END_SECONDS)
            self.process.kill()
        code = self.process.wait(WAIT_SECONDS)
        for each in self.family():  # psutil compares start times: a reused id is another one.
            with suppress(psutil.NoSuchProcess):
                each.kill()
        self._reader.join(WAIT_SECONDS)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


@asynccontextmanager
async def started(
    command: Sequence[str | Path], file: Path, environment: Mapping[str, str] | None = None
) -> AsyncIterator[Program]:
    """Start a program and end it, also while being cancelled."""
    program = Program(file)
    program.launch(command, environment)
    try:
        yield program
    finally:
        await asyncio.shield(asyncio.to_thread(program.end))


def carried_out(
    name: str, folder: Path | None, work: Callable[[Path], Coroutine[Any, Any, Value]]
) -> Value:
    """Do a drill in a folder, a temporary one if None, and leave no process behind.

    Raises:
        SystemExit: it was interrupted, or what it waited for did not come.

    """
    try:
        with tempfile.TemporaryDirectory(prefix=f"{name}-") as temporary:
            place = (folder or Path(temporary)).resolve()
            place.mkdir(parents=True, exist_ok=True)
            return asyncio.run(_cancellable(work(place)))
    except (KeyboardInterrupt, asyncio.CancelledError):
        raise SystemExit(INTERRUPTED) from None
    except TooLateError as error:
        raise SystemExit(f"{name}: {error}") from None  # It is printed, and the code is 1.
    finally:
        # The last net, for a second Ctrl-C in the midst of the first one's work.
        for child in psutil.Process().children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if TRACKER not in " ".join(child.cmdline()):
                    child.kill()


async def _cancellable(work: Coroutine[Any, Any, Value]) -> Value:
    """Let SIGTERM end the drill as Ctrl-C does, also where a shell ignores that for its jobs."""
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    return await work
