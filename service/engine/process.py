"""An engine in a process of its own, started again when it ends by itself or hangs."""

import asyncio

import structlog

from service.config import Config
from service.diffusion.generation import (
    GenerationRequest,
    JobCancelled,
    JobFailed,
    JobFinished,
    Stepped,
)
from service.engine import worker
from service.engine.base import Engine, EngineState, Listener
from service.engine.child import Child, Entry
from service.engine.heartbeat import Heartbeat, Size
from service.engine.messages import (
    Cancel,
    EngineExited,
    EngineFailed,
    EngineReady,
    Event,
    Generate,
    Preview,
    Shutdown,
)

log = structlog.get_logger(__name__)

RESTART_DELAYS = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""Seconds before each restart in a row; one finished job starts the row anew."""

STOP_SECONDS = 5.0
"""How long the step in work may take to end before the process is killed."""


class ProcessEngine(Engine):
    """The step loop in a spawned child, which alone imports torch."""

    def __init__(self, config: Config, *, entry: Entry = worker.run) -> None:
        self._config = config
        self._entry = entry
        self._child: Child | None = None
        self._listener: Listener = _ignore
        self._in_work: dict[str, Size] = {}
        """Sizes of the jobs handed over whose end the child has not reported."""
        self._heartbeat = Heartbeat(config.engine_stall_seconds)
        self._crashes_in_a_row = 0
        self._stopping = False
        self._stall_seen = False
        self._restart: asyncio.Task[None] | None = None
        self._watchdog: asyncio.TimerHandle | None = None

    @property
    def pid(self) -> int | None:
        """The child's process id, or None when there is none."""
        return self._child.pid if self._child else None

    async def start(self, listener: Listener) -> None:
        """Start the child; its events come to ``listener`` on this event loop."""
        self._listener = listener
        self.state = EngineState.LOADING
        await self._spawn()

    async def stop(self) -> None:
        """Let the child end its step; kill it when that takes too long or it still loads."""
        self._stopping = True
        was, self.state = self.state, EngineState.STOPPED
        if self._watchdog is not None:
            self._watchdog.cancel()
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
        if self._child is not None:
            self._in_work[job_id] = request.width, request.height
            self._child.send(Generate(job_id=job_id, request=request))
            self._watch()

    def cancel(self, job_id: str) -> None:
        """Take a job out of the batch before the next step; unknown ids are ignored."""
        if self._child is not None:
            self._child.send(Cancel(job_id=job_id))

    def preview(self, job_id: str, *, wanted: bool) -> None:
        """Begin or end to send previews of a job."""
        if self._child is not None:
            self._child.send(Preview(job_id=job_id, wanted=wanted))

    async def _spawn(self) -> None:
        child = Child(self._entry, self._config)
        try:
            await child.start(self._deliver, lambda: self._ended(child))
        except OSError as error:  # No process or no memory for one: later there may be.
            log.warning("engine_start_failed", error=str(error))
            self._start_again(None)
            return
        self._child = child
        log.info("engine_started", pid=child.pid)

    def _deliver(self, event: Event) -> None:
        if self._stopping:
            return
        match event:
            case EngineReady():
                self.state, self.model, self.failure = EngineState.READY, event.model, ""
            case EngineFailed() if self.model is not None:
                # It did load before: a device that is short of memory for a while, say.
                self.failure = event.detail
                log.warning("model_reload_failed", code=event.code, detail=event.detail)
                return
            case EngineFailed():
                self.state, self.failure = EngineState.FAILED, event.detail
            case Stepped():
                pixels = event.pixels // max(event.batch_size, 1)
                self._heartbeat.observe(pixels=pixels, seconds=event.seconds)
            case JobFinished():
                self._crashes_in_a_row = 0
                self._in_work.pop(event.job_id, None)
            case JobFailed() | JobCancelled():
                self._in_work.pop(event.job_id, None)
        self._watch()
        self._listener(event)

    def _watch(self) -> None:
        """Start the watchdog anew: an engine with work must say something now and then."""
        if self._watchdog is not None:
            self._watchdog.cancel()
        self._watchdog = None
        if self._in_work:
            seconds = self._heartbeat.limit(self._in_work.values())
            self._watchdog = asyncio.get_running_loop().call_later(seconds, self._stalled, seconds)

    def _stalled(self, seconds: float) -> None:
        if self._child is not None:
            self._stall_seen = True
            log.error("engine_stalled", seconds=seconds, pid=self.pid)
            self._child.kill()

    def _ended(self, child: Child) -> None:
        self._child = None
        self._in_work.clear()
        self._watch()
        if not self._stopping and self.state is not EngineState.FAILED:
            self._start_again(child.exit_code)

    def _start_again(self, exit_code: int | None) -> None:
        self.state = EngineState.RESTARTING
        self.restarts += 1
        delay = RESTART_DELAYS[min(self._crashes_in_a_row, len(RESTART_DELAYS) - 1)]
        self._crashes_in_a_row += 1
        stalled, self._stall_seen = self._stall_seen, False
        self._listener(EngineExited(exit_code=exit_code, restarts=self.restarts, stalled=stalled))
        self._restart = asyncio.create_task(self._spawn_after(delay))

    async def _spawn_after(self, delay: float) -> None:
        await asyncio.sleep(delay)
        await self._spawn()


def _ignore(event: Event) -> None:
    """Hear an event before anyone listens."""
