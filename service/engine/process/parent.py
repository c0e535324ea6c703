"""An engine in a process of its own, started again when it ends by itself or hangs."""

import asyncio
import contextlib

import structlog

from service.config.table import Config
from service.core import events
from service.core.inputs import InputSource
from service.core.spec import GenerationSpec
from service.core.stage import Stage
from service.engine import protocol
from service.engine.base import Engine, EngineState, Listener
from service.engine.channel import COMMANDS, EVENTS, GarbageError
from service.engine.heartbeat import Heartbeat
from service.engine.inputs import with_inputs
from service.engine.inspection import Inspector
from service.engine.process import worker
from service.engine.process.child import Child, Later, WorkerMain
from service.engine.watchdog import Watchdog

log = structlog.get_logger(__name__)

RESTART_DELAYS = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""Seconds before each restart in a row; one finished job starts the row anew."""

STOP_SECONDS = 5.0
"""How long the step in work may take to end before the process is killed."""

EngineChild = Child[protocol.Command, protocol.EngineEvent]


class ProcessEngine(Engine):
    """The step loop in a spawned child, which alone imports torch."""

    def __init__(self, config: Config, *, entry: WorkerMain = worker.run) -> None:
        self._config = config
        self._entry = entry
        self._child: EngineChild | None = None
        self._listener: Listener = _ignore
        self._in_work: dict[str, protocol.Generate] = {}
        """Jobs handed over whose end the child has not reported, by id."""
        self._leaving: set[str] = set()
        """Of these, the ones that it was told to stop."""
        self._interrupted: set[str] = set()
        """Of these, the ones to end early with their unfinished images."""
        self._heartbeat = Heartbeat(config.engine_stall_seconds)
        self._watchdog = Watchdog(self._heartbeat, self._in_work, self._stalled)
        self._log: structlog.stdlib.BoundLogger = log
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
        self._log = log.bind(engine=self.name)
        self._watchdog.engine = self.name
        self.state = EngineState.LOADING
        await self._spawn()

    async def stop(self, *, at_once: bool = False) -> None:
        """Let the child end its step; kill it when that takes too long or it still loads."""
        self._stopping = True
        was, self.state = self.state, EngineState.STOPPED
        self._watchdog.rest()
        if self._restart is not None:
            self._restart.cancel()
            await asyncio.gather(self._restart, return_exceptions=True)
        if self._child is None:
            return
        self._child.send(protocol.Shutdown())
        kill = at_once or was is not EngineState.READY
        if kill or not await self._child.wait(STOP_SECONDS):
            self._child.kill()
            await self._child.wait()

    def generate(
        self,
        job_id: str,
        request: GenerationSpec,
        epoch: int,
        inputs: InputSource | None = None,
    ) -> None:
        """Let a job join the running batch before the next step."""
        if self._child is None:
            return
        idle = not self._in_work
        command = protocol.Generate(job_id=job_id, epoch=epoch, request=request)
        self._in_work[job_id] = command
        self._child.send(self._with_inputs(command, inputs) if inputs else command)
        if idle:
            self._watchdog.hear(Stage.WAKE)
        else:
            self._watchdog.update()

    def _with_inputs(
        self, command: protocol.Generate, inputs: InputSource
    ) -> Later[protocol.Command]:
        """Return what reads the images of a job; where it cannot, that job alone fails."""
        loop, child = asyncio.get_running_loop(), self._child

        def read() -> protocol.Generate | None:
            made = with_inputs(command, inputs, self.name)
            if isinstance(made, protocol.Generate):
                return made
            with contextlib.suppress(RuntimeError):  # The loop is closed.
                loop.call_soon_threadsafe(self._unread, child, made)
            return None

        return read

    def _unread(self, child: EngineChild | None, failed: events.JobFailed) -> None:
        """End a job whose images cannot be read, unless that attempt is over."""
        known = self._in_work.get(failed.job_id)
        if self._stopping or child is None or child is not self._child or child.cause:
            return
        if known is not None and known.epoch == failed.epoch:
            self._pass_on(child, failed)

    def cancel(self, job_id: str) -> None:
        """Take a job out of the batch before the next step; unknown ids are ignored."""
        if self._child is not None:
            self._leaving.add(job_id)
            self._child.send(protocol.Cancel(job_id=job_id))

    def interrupt(self, job_id: str) -> None:
        """End a job early with its unfinished images; unknown ids are ignored."""
        if self._child is not None and job_id in self._in_work:
            self._interrupted.add(job_id)
            self._child.send(protocol.Interrupt(job_id=job_id))

    def load_model(self, model_id: str) -> None:
        """Load a model while the batch goes on."""
        if self._child is not None:
            self._child.send(protocol.LoadModel(model_id=model_id))
            if not self._in_work:
                self._watchdog.hear(Stage.LOAD)  # Its signs of life follow, or the answer.

    def unload_model(self, model_id: str, reason: events.UnloadReason) -> None:
        """Free the memory of a model."""
        if self._child is not None:
            self._child.send(protocol.UnloadModel(model_id=model_id, reason=reason))

    def preview(self, job_id: str, *, wanted: bool) -> None:
        """Begin or end to send previews of a job."""
        if self._child is not None:
            self._child.send(protocol.Preview(job_id=job_id, wanted=wanted))

    async def _spawn(self) -> None:
        try:
            child = EngineChild(
                *(self._entry, self._config, self.name), sent=COMMANDS, received=EVENTS
            )
            inspector = Inspector(self._in_work, self._leaving, self._interrupted, self.name)
            await child.start(
                lambda said: self._deliver(child, inspector, said), lambda: self._ended(child)
            )
        except (OSError, RuntimeError, MemoryError) as error:
            # No process, thread, pipe or memory for one: later there may be.
            self._log.warning("engine_start_failed", error=str(error))
            self._start_again(None)
            return
        self._child = child
        self._heartbeat.renew()
        self._watchdog.hear(Stage.LOAD)
        self._log.info("engine_started", pid=child.pid)

    def _deliver(
        self, child: EngineChild, inspector: Inspector, said: protocol.EngineEvent
    ) -> None:
        if self._stopping or child.cause:  # What a condemned child says is not heard.
            return
        try:
            current = inspector.check(said)
        except GarbageError as error:
            self._log.error("engine_garbage", reason=str(error), pid=child.pid)
            child.kill("garbage")
            return
        if current:
            self._pass_on(child, said)

    def _pass_on(self, child: EngineChild, said: protocol.EngineEvent) -> None:
        if not self._took_note(child, said):
            return
        if self._in_work or isinstance(said, protocol.StageStarted):
            self._watchdog.hear(
                said.stage if isinstance(said, protocol.StageStarted) else Stage.DENOISE
            )
        else:
            self._watchdog.rest()
        self._listener(said)

    def _took_note(self, child: EngineChild, said: protocol.EngineEvent) -> bool:
        """Bring the state up to date; return whether the listener is to hear of it."""
        match said:
            case protocol.EngineReady():
                self.state, self.model, self.failure = EngineState.READY, said.model, ""
            case protocol.EngineFailed() if said.transient or self.model is not None:
                # Memory that others hold for a while, or a model that did load before.
                self.failure, child.cause = said.detail, "load_failed"
                if self.model is None:
                    self._log.warning("model_load_postponed", code=said.code, detail=said.detail)
                else:
                    self._log.warning("model_reload_failed", code=said.code, detail=said.detail)
                return False
            case protocol.EngineFailed():
                self.state, self.failure = EngineState.FAILED, said.detail
            case protocol.StageStarted() | events.Stepped() | events.OutOfMemoryHit() if (
                self.state is EngineState.READY
            ):
                self._heartbeat.hear(said)  # What it tries before is no usual work.
            case events.StepBaseline():
                self._heartbeat.hear(said)
                return False
            case events.JobFinished() | events.JobFailed() | events.JobCancelled():
                if isinstance(said, events.JobFinished):
                    self._crashes_in_a_row = 0
                del self._in_work[said.job_id]
                self._leaving.discard(said.job_id)
                self._interrupted.discard(said.job_id)
        return True

    def _stalled(self, seconds: float) -> None:
        if self._child is not None:
            self._log.error("engine_stalled", seconds=round(seconds, 3), pid=self.pid)
            self._child.kill("stalled")

    def _ended(self, child: EngineChild) -> None:
        if child is not self._child:
            return
        self._child = None
        self._in_work.clear()
        self._leaving.clear()
        self._interrupted.clear()
        self._watchdog.rest()
        if not self._stopping and self.state is not EngineState.FAILED:
            self._start_again(child.exit_code, child.cause)

    def _start_again(self, exit_code: int | None, cause: str = "") -> None:
        self.state = EngineState.RESTARTING
        self.restarts += 1
        delay = RESTART_DELAYS[min(self._crashes_in_a_row, len(RESTART_DELAYS) - 1)]
        self._crashes_in_a_row += 1
        self._listener(
            protocol.EngineExited(
                exit_code=exit_code, restarts=self.restarts, cause=cause, restart_seconds=delay
            )
        )
        self._restart = asyncio.create_task(self._spawn_after(delay))

    async def _spawn_after(self, delay: float) -> None:
        await asyncio.sleep(delay)
        await self._spawn()


def _ignore(event: protocol.Event) -> None:
    """Hear an event before anyone listens."""
