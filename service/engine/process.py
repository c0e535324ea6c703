"""An engine in a process of its own, started again when it ends by itself."""

import asyncio
import contextlib
import multiprocessing
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

import structlog

from service.config import Config
from service.diffusion.generation import GenerationRequest, JobFinished
from service.engine import worker
from service.engine.base import Engine, EngineState, Listener
from service.engine.messages import (
    Cancel,
    Command,
    EngineExited,
    EngineFailed,
    EngineReady,
    Event,
    Generate,
    Shutdown,
)

log = structlog.get_logger(__name__)

# fork would copy a running event loop and, on a GPU, a CUDA context that no child may use.
SPAWN = multiprocessing.get_context("spawn")

RESTART_DELAYS = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""Seconds before each restart in a row; one finished job starts the row anew."""

Entry = Callable[["Connection[Event, Command]", Config], None]
"""What the child runs: it must be importable by name, since it is pickled."""

STOP_SECONDS = 5.0
"""How long a step may take to end before the process is killed."""


class ProcessEngine(Engine):
    """The step loop in a spawned child, which alone imports torch.

    Commands and events are pickled over one pipe. A thread reads it, so that a large
    picture never holds up the event loop. A child whose parent is gone reads the end of
    the pipe and leaves.
    """

    def __init__(self, config: Config, *, entry: Entry = worker.run) -> None:
        self._config = config
        self._entry = entry
        self._process: SpawnProcess | None = None
        self._connection: Connection[Command, Event] | None = None
        self._reader: threading.Thread | None = None
        self._listener: Listener = _ignore
        self._crashes_in_a_row = 0
        self._stopping = False
        self._restart: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The child's process id, or None when there is none."""
        return self._process.pid if self._process else None

    async def start(self, listener: Listener) -> None:
        """Start the child; its events come to ``listener`` on this event loop."""
        self._listener = listener
        self.state = EngineState.LOADING
        await self._spawn()

    async def stop(self) -> None:
        """Ask the child to end after its step; kill it when it does not."""
        self._stopping = True
        self.state = EngineState.STOPPED
        if self._restart is not None:
            self._restart.cancel()
            await asyncio.gather(self._restart, return_exceptions=True)
        self._send(Shutdown())
        if self._process is not None and self._reader is not None:
            await asyncio.to_thread(self._reader.join, STOP_SECONDS)
            if self._reader.is_alive():
                self._process.kill()
                await asyncio.to_thread(self._reader.join)

    def generate(self, job_id: str, request: GenerationRequest) -> None:
        """Let a job join the running batch before the next step."""
        self._send(Generate(job_id=job_id, request=request))

    def cancel(self, job_id: str) -> None:
        """Take a job out of the batch before the next step; unknown ids are ignored."""
        self._send(Cancel(job_id=job_id))

    def _send(self, command: Command) -> None:
        # A child that just died has no reader; its exit is reported by the reading thread.
        if self._connection is not None:
            with contextlib.suppress(OSError):
                self._connection.send(command)

    async def _spawn(self) -> None:
        ours, theirs = SPAWN.Pipe()
        process = SPAWN.Process(
            target=self._entry, args=(theirs, self._config), name="sd-engine", daemon=True
        )
        await asyncio.to_thread(process.start)
        theirs.close()  # Else the end of the child would not end the pipe.
        self._process, self._connection = process, ours
        self._reader = threading.Thread(
            target=self._read,
            args=(ours, process, asyncio.get_running_loop()),
            name="engine-reader",
            daemon=True,
        )
        self._reader.start()
        log.info("engine_started", pid=process.pid)

    def _read(
        self,
        connection: "Connection[Command, Event]",
        process: SpawnProcess,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        """Carry events to the event loop until the child ends; runs on a thread.

        Nobody else waits for the process: of two who do, one may find it gone without
        its exit code.
        """
        with contextlib.suppress(EOFError, OSError, RuntimeError):
            while True:
                loop.call_soon_threadsafe(self._deliver, connection.recv())
        process.join()
        connection.close()
        with contextlib.suppress(RuntimeError):  # The loop is closed: nobody listens.
            loop.call_soon_threadsafe(self._ended, process)

    def _deliver(self, event: Event) -> None:
        if self._stopping:
            return
        match event:
            case EngineReady():
                self.state, self.model = EngineState.READY, event.model
            case EngineFailed():
                self.state, self.failure = EngineState.FAILED, event.detail
            case JobFinished():
                self._crashes_in_a_row = 0
        self._listener(event)

    def _ended(self, process: SpawnProcess) -> None:
        self._connection = None
        if self._stopping or self.state is EngineState.FAILED:
            return
        self.state = EngineState.RESTARTING
        self.restarts += 1
        delay = RESTART_DELAYS[min(self._crashes_in_a_row, len(RESTART_DELAYS) - 1)]
        self._crashes_in_a_row += 1
        self._listener(EngineExited(exit_code=process.exitcode, restarts=self.restarts))
        self._restart = asyncio.create_task(self._spawn_after(delay))

    async def _spawn_after(self, delay: float) -> None:
        await asyncio.sleep(delay)
        await self._spawn()


def _ignore(event: Event) -> None:
    """Hear an event before anyone listens."""
