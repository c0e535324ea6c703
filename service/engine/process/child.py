"""A spawned process and the pipe to it, neither of which can hold up the event loop."""

import asyncio
import atexit
import contextlib
import multiprocessing
import queue
import signal
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Generic

import structlog

from service.config.loading import without_secrets
from service.config.table import Config
from service.engine.channel import Channel, GarbageError, Reader, Received, Sent
from service.engine.inspection import longest_message
from service.engine.protocol import Command, EngineEvent
from service.system import parent_death
from service.system.executors import ENGINE
from service.telemetry import stderr

log = structlog.get_logger(__name__)

# fork would copy a running event loop and, on a GPU, a CUDA context that no child may use.
SPAWN = multiprocessing.get_context("spawn")

GROUP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

WorkerMain = Callable[[Channel[EngineEvent, Command], Config], None]
"""What the child runs: it must be importable by name, since it is pickled."""

Later = Callable[[], Sent | None]
"""Makes a message, or none, when those before it are sent; runs on the writing thread."""


def _begin(
    entry: Callable[[Channel[Received, Sent], Config], None],
    pipe: "Connection[bytes, bytes]",
    sent: Reader[Sent],
    config: Config,
    *,
    name: str,
    terminal: bool,
) -> None:
    """Run ``entry``; what it says passes a queue, so that nothing waits for a log line."""
    # A kernel that hangs does not look at the pipe, and would hold the GPU.
    parent = multiprocessing.parent_process()
    parent_death.follow(parent.pid if parent else None)
    structlog.contextvars.bind_contextvars(engine=name)
    with stderr.inherited(terminal=terminal):
        entry(Channel(pipe, sent), config)


class Child(Generic[Sent, Received]):
    """One process of an engine or of what finds engines, from its start to its end.

    Messages of both sides pass one pipe. One thread reads it, so that a large
    image never holds up the event loop, and one writes it, since a child that hangs
    reads nothing and a full pipe blocks whoever writes. A child whose parent is gone
    is ended by the kernel on Linux; elsewhere it finds the pipe closed and leaves.
    """

    def __init__(
        self,
        entry: Callable[[Channel[Received, Sent], Config], None],
        config: Config,
        name: str,
        *,
        sent: Reader[Sent],
        received: Reader[Received],
    ) -> None:
        self._log = log.bind(engine=name)
        self.cause = ""
        """Why this side ended it, or why it said that it would end."""
        self._longest = longest_message(config)
        ours, self._theirs = SPAWN.Pipe()
        self._channel: Channel[Sent, Received] = Channel(ours, received)
        self._process: SpawnProcess = SPAWN.Process(
            target=_begin,
            args=(entry, self._theirs, sent, without_secrets(config)),
            kwargs={"name": name, "terminal": stderr.is_terminal()},
            name="sd-engine",
            daemon=True,
        )
        self._commands: queue.SimpleQueue[Sent | Later[Sent] | None] = queue.SimpleQueue()
        self._kept: queue.SimpleQueue[bool] = queue.SimpleQueue()
        """Whether the started process is to stay; answered once."""
        self._reader: threading.Thread | None = None

    @property
    def pid(self) -> int | None:
        """The process id."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """As in ``subprocess``: negative for a signal, None while it runs."""
        return self._process.exitcode

    async def start(self, deliver: Callable[[Received], None], ended: Callable[[], None]) -> None:
        """Start the process; both callables are called on this event loop.

        Raises:
            OSError, RuntimeError, MemoryError: there is no room for a process or its threads.

        """
        launched: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        reader = threading.Thread(
            target=self._run, args=(launched, deliver, ended), name="engine-reader", daemon=True
        )
        writer = threading.Thread(target=self._write, name="engine-writer", daemon=True)
        reader.start()
        try:
            await _unless_cancelled(launched)
            writer.start()
        except BaseException:  # Among them: no thread could be started.
            self._kept.put(False)
            raise
        # multiprocessing ends its daemons with SIGTERM, which an engine ignores, and then
        # waits for them: without this an exit by an exception would never come to its end.
        atexit.register(self._process.kill)
        self._theirs.close()  # Else the end of the child would not end the pipe.
        self._reader = reader
        self._kept.put(True)

    def _run(
        self,
        launched: "asyncio.Future[None]",
        deliver: Callable[[Received], None],
        ended: Callable[[], None],
    ) -> None:
        """Start the process and stay as long as it does, since it ends with this thread."""
        loop = launched.get_loop()
        try:
            self._launch()
        except Exception as error:  # noqa: BLE001 - whoever waits gets it
            loop.call_soon_threadsafe(launched.set_exception, error)
            return
        with contextlib.suppress(RuntimeError):  # The loop is closed: nobody waits.
            loop.call_soon_threadsafe(launched.set_result, None)
            if self._kept.get():
                self._read(loop, deliver, ended)
                return
        self._process.kill()
        self._process.join()

    def _launch(self) -> None:
        """Start the process with the signals blocked that are sent to a whole group.

        They are the service's to hear, and an engine ignores them once it has begun.
        """
        before = signal.pthread_sigmask(signal.SIG_BLOCK, GROUP_SIGNALS)
        try:
            self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def send(self, command: Sent | Later[Sent]) -> None:
        """Hand over a message; what a dead child cannot read any more is dropped."""
        self._commands.put(command)

    def kill(self, cause: str = "") -> None:
        """End the process at once; ``ended`` is called as for any other end."""
        self.cause = self.cause or cause
        self._process.kill()

    async def wait(self, seconds: float | None = None) -> bool:
        """Wait for the end, for some seconds at most; return whether it came."""
        if self._reader is None:
            return True
        await ENGINE.run(self._reader.join, seconds)
        return not self._reader.is_alive()

    def _read(
        self,
        loop: asyncio.AbstractEventLoop,
        deliver: Callable[[Received], None],
        ended: Callable[[], None],
    ) -> None:
        """Carry events to the event loop until the child ends; runs on a thread.

        Nobody else waits for the process: of two who do, one may find it gone without
        its exit code. Whatever else happens here, the end of the child is told.
        """
        try:
            while True:
                loop.call_soon_threadsafe(deliver, self._channel.receive(self._longest))
        except GarbageError as error:
            self._log.error("engine_garbage", reason=str(error), pid=self.pid)
            self.kill("garbage")
        except (EOFError, OSError, RuntimeError):  # The child is gone, or the event loop is.
            pass
        except MemoryError:
            self._log.exception("engine_reader_failed", pid=self.pid)
            self.kill()
        self._process.join()
        atexit.unregister(self._process.kill)
        self._commands.put(None)
        with contextlib.suppress(RuntimeError):  # The loop is closed.
            loop.call_soon_threadsafe(ended)

    def _write(self) -> None:
        """Carry commands to the child until the reader has ended; runs on a thread.

        Only then is the pipe closed: a reader that is in the middle of it would fail.
        """
        gone = False
        while (command := self._commands.get()) is not None:
            if gone:
                continue
            made = command() if callable(command) else command
            try:
                if made is not None:
                    self._channel.send(made)
            except OSError:
                gone = True
        self._channel.close()


async def _unless_cancelled(launched: "asyncio.Future[None]") -> None:
    """Wait for a start, even if cancelled: a thread cannot be, and what it starts must not stay."""
    try:
        await asyncio.shield(launched)
    except asyncio.CancelledError:
        await launched
        raise
