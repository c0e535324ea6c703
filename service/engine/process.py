"""An engine in a process of its own, started again when it ends by itself or hangs."""

import asyncio

import structlog

from service.config import Config
from service.diffusion.generation import (
    GenerationRequest,
    JobCancelled,
    JobFailed,
    JobFinished,
    OutOfMemoryHit,
    Stepped,
    Usual,
)
from service.engine import worker
from service.engine.base import Engine, EngineState, Listener
from service.engine.child import Child, Entry
from service.engine.heartbeat import LOAD, STEP, Heartbeat
from service.engine.inspection import Inspector
from service.engine.messages import (
    Began,
    Cancel,
    EngineExited,
    EngineFailed,
    EngineReady,
    Event,
    Generate,
    Preview,
    Said,
    Shutdown,
)
from service.engine.watchdog import Watchdog
from service.engine.wire import GarbageError

log = structlog.get_logger(__name__)

RESTART_DELAYS = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""Seconds before each restart in a row; one finished job starts the row anew."""

WAKE = "wake"
"""The stage of an engine that had nothing to do, and is given work."""

STOP_SECONDS = 5.0
"""How long the step in work may take to end before the process is killed."""


class ProcessEngine(Engine):
    """The step loop in a spawned child, which alone imports torch."""

    def __init__(self, config: Config, *, entry: Entry = worker.run) -> None:
        self._config = config
        self._entry = entry
        self._child: Child | None = None
        self._listener: Listener = _ignore
        self._in_work: dict[str, GenerationRequest] = {}
        """Jobs handed over whose end the child has not reported."""
        self._leaving: set[str] = set()
        """Of these, the ones that it was told to stop."""
        self._heartbeat = Heartbeat(config.engine_stall_seconds)
        self._watchdog = Watchdog(self._heartbeat, self._in_work, self._stalled)
        self._crashes_in_a_row = 0
        self._stopping = False
        self._restart: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The child's process id, or None when there is none."""
        return self._child.pid if self._child else None

    @property
    def silence(self) -> float:
        """Seconds since the child last said something, while it loads or has work; else 0."""
        return self._watchdog.silence

    @property
    def late(self) -> bool:
        """Whether the child has been silent for half as long as it takes to be killed."""
        return self._watchdog.late

    async def start(self, listener: Listener) -> None:
        """Start the child; its events come to ``listener`` on this event loop."""
        self._listener = listener
        self.state = EngineState.LOADING
        await self._spawn()

    async def stop(self) -> None:
        """Let the child end its step; kill it when that takes too long or it still loads."""
        self._stopping = True
        was, self.state = self.state, EngineState.STOPPED
        self._watchdog.rest()
        if self._restart is not None:
            self._restart.cancel()
            await asyncio.gather(self._restart, return_exceptions=True)
        if self._child is None:
            return
        self._child.send(Shutdown())
        if was is not EngineState.READY or not await self._child.wait(STOP_SECONDS):
            self._child.kill()
            await self._child.wait()

    def generate(self, job_id: str, request: GenerationRequest) -> None:
        """Let a job join the running batch before the next step."""
        if self._child is None:
            return
        idle = not self._in_work
        self._in_work[job_id] = request
        self._child.send(Generate(job_id=job_id, request=request))
        if idle:
            self._watchdog.hear(WAKE)
        else:
            self._watchdog.update()

    def cancel(self, job_id: str) -> None:
        """Take a job out of the batch before the next step; unknown ids are ignored."""
        if self._child is not None:
            self._leaving.add(job_id)
            self._child.send(Cancel(job_id=job_id))

    def preview(self, job_id: str, *, wanted: bool) -> None:
        """Begin or end to send previews of a job."""
        if self._child is not None:
            self._child.send(Preview(job_id=job_id, wanted=wanted))

    async def _spawn(self) -> None:
        try:
            child = Child(self._entry, self._config)
            inspector = Inspector(self._in_work, self._leaving)
            await child.start(
                lambda said: self._deliver(child, inspector, said), lambda: self._ended(child)
            )
        except (OSError, RuntimeError, MemoryError) as error:
            # No process, thread, pipe or memory for one: later there may be.
            log.warning("engine_start_failed", error=str(error))
            self._start_again(None)
            return
        self._child = child
        self._heartbeat.renew()
        self._watchdog.hear(LOAD)
        log.info("engine_started", pid=child.pid)

    def _deliver(self, child: Child, inspector: Inspector, said: Said) -> None:
        if self._stopping or child.cause:  # What a condemned child says is not heard.
            return
        try:
            inspector.check(said)
        except GarbageError as error:
            log.error("engine_garbage", reason=str(error), pid=child.pid)  # noqa: TRY400 - a known case
            child.kill("garbage")
            return
        if not self._took_note(child, said):
            return
        if self._in_work or isinstance(said, Began):
            self._watchdog.hear(said.stage if isinstance(said, Began) else STEP)
        else:
            self._watchdog.rest()
        self._listener(said)

    def _took_note(self, child: Child, said: Said) -> bool:
        """Bring the state up to date; return whether the listener is to hear of it."""
        match said:
            case EngineReady():
                self.state, self.model, self.failure = EngineState.READY, said.model, ""
            case EngineFailed() if said.passing or self.model is not None:
                # Memory that others hold for a while, or a model that did load before.
                self.failure, child.cause = said.detail, "load_failed"
                if self.model is None:
                    log.warning("model_load_postponed", code=said.code, detail=said.detail)
                else:
                    log.warning("model_reload_failed", code=said.code, detail=said.detail)
                return False
            case EngineFailed():
                self.state, self.failure = EngineState.FAILED, said.detail
            case Began() | Stepped() | OutOfMemoryHit() if self.state is EngineState.READY:
                self._heartbeat.hear(said)  # What it tries before is no usual work.
            case Usual():
                self._heartbeat.hear(said)
                return False
            case JobFinished() | JobFailed() | JobCancelled():
                if isinstance(said, JobFinished):
                    self._crashes_in_a_row = 0
                del self._in_work[said.job_id]
                self._leaving.discard(said.job_id)
        return True

    def _stalled(self, seconds: float) -> None:
        if self._child is not None:
            log.error("engine_stalled", seconds=round(seconds, 3), pid=self.pid)
            self._child.kill("stalled")

    def _ended(self, child: Child) -> None:
        if child is not self._child:
            return
        self._child = None
        self._in_work.clear()
        self._leaving.clear()
        self._watchdog.rest()
        if not self._stopping and self.state is not EngineState.FAILED:
            self._start_again(child.exit_code, child.cause)

    def _start_again(self, exit_code: int | None, cause: str = "") -> None:
        self.state = EngineState.RESTARTING
        self.restarts += 1
        delay = RESTART_DELAYS[min(self._crashes_in_a_row, len(RESTART_DELAYS) - 1)]
        self._crashes_in_a_row += 1
        self._listener(
            EngineExited(
                exit_code=exit_code, restarts=self.restarts, cause=cause, restart_seconds=delay
            )
        )
        self._restart = asyncio.create_task(self._spawn_after(delay))

    async def _spawn_after(self, delay: float) -> None:
        await asyncio.sleep(delay)
        await self._spawn()


def _ignore(event: Event) -> None:
    """Hear an event before anyone listens."""
