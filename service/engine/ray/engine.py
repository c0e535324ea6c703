"""An engine on another machine, as the dispatcher sees it."""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Final

import structlog

from service.core import events
from service.core.inputs import InputSource
from service.core.spec import GenerationSpec
from service.core.stage import Stage
from service.engine import protocol
from service.engine.base import Engine, EngineState, Listener
from service.engine.channel import GarbageError, written
from service.engine.inputs import with_inputs
from service.engine.inspection import Inspector
from service.engine.process.child import Later
from service.engine.ray.messages import (
    REMOTE_EVENTS,
    Acknowledge,
    Alive,
    Attach,
    Drain,
    End,
    EngineAttached,
    FromEngine,
    ToDriver,
    ToEngine,
    Watch,
)
from service.engine.ray.metrics import EngineLease, EngineStatus
from service.engine.ray.reports import check_exit, narrowed

log = structlog.get_logger(__name__)

SUSPECT_SECONDS: Final = 3.0
"""An engine that was not heard for so long gets no new jobs."""

LOST_SECONDS: Final = 10.0
"""After so long its jobs run elsewhere; a host that hears nothing for as long ends its child."""

ASLEEP_SECONDS: Final = 1.0
"""A look that comes so late tells that the service itself stood still, and heard nothing."""

Result = events.JobFinished | events.JobFailed | events.JobCancelled


class RemoteEngine(Engine):
    """Commands go to the driver, and what the host says comes back, checked as from a child.

    The host goes on while the driver or the service is gone. What it has in work then is told to
    the listener when it is heard again (``EngineAdopted``).
    """

    def __init__(
        self,
        actor: str,
        node: str,
        send: Callable[[ToDriver | Later[ToDriver]], None],
        adopted: Callable[[int], None] = lambda _jobs: None,
    ) -> None:
        """Set up. ``adopted`` hears of how many jobs that went on unheard were taken up."""
        self.actor, self.node = actor, node
        self.gpu = ""
        """UUID or index of its GPU; empty on a CPU, and before it is known."""
        self._send, self._adopted = send, adopted
        self._listener: Listener = lambda _event: None
        self._log: structlog.stdlib.BoundLogger = log.bind(actor=actor)
        self._generation = 0
        """The attachment whose messages are heard; 0 for none."""
        self._starts = 0
        self._in_work: dict[str, protocol.Generate] = {}
        self._leaving: set[str] = set()
        self._interrupted: set[str] = set()
        self._watched: set[str] = set()
        self._loading: set[str] = set()
        """Models that were asked for and have not come."""
        self._inspector = self._new_inspector()
        self._heard = 0.0
        self._pulse = (0.0, False)
        self._cut_off = True
        """Whether the driver that could carry something is gone."""
        self._early: list[Callable[[], None]] = []
        """An attachment that came before ``start``, and what came after it."""
        self._timer: asyncio.TimerHandle | None = None

    @property
    def silence(self) -> float:
        """Seconds since its host or its child said something, while that is too long; else 0."""
        if self.state not in {EngineState.READY, EngineState.LOADING} or not self._generation:
            return 0.0
        host = self._now() - self._heard
        return host if host > SUSPECT_SECONDS else self._pulse[0]

    @property
    def late(self) -> bool:
        """Whether it was not heard for a while; it gets no new jobs."""
        silent = self._cut_off or self._now() - self._heard > SUSPECT_SECONDS
        return self.state is EngineState.READY and (silent or self._pulse[1])

    def lease(self, *, leaving: bool) -> EngineLease:
        """Return how the host answers, for the metrics."""
        age = max(0.0, self._now() - self._heard)
        status: EngineStatus = "answering"
        if leaving:
            status = "leaving"
        elif self.state is EngineState.RESTARTING and not self._generation:
            status = "lost"
        elif self._cut_off or age > SUSPECT_SECONDS:
            status = "late"
        return EngineLease(slot=self.name, status=status, age=age)

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()

    async def start(self, listener: Listener) -> None:
        """Listen to the host, which loads the model."""
        self._listener, self._log = listener, log.bind(engine=self.name, actor=self.actor)
        self.state = EngineState.LOADING
        self._log.info("engine_joined", node=self.node)
        self._heard = self._now()
        self._look_later()
        early, self._early = self._early, []
        for repeat in early:
            repeat()

    async def stop(self) -> None:
        """Let the driver end the engine and its actor; no event follows."""
        self.state = EngineState.STOPPED
        self._generation = 0
        if self._timer is not None:
            self._timer.cancel()
        self._send(Drain(engine=self.actor))

    def generate(
        self,
        job_id: str,
        request: GenerationSpec,
        epoch: int,
        inputs: InputSource | None = None,
    ) -> None:
        """Let a job join the running batch before the next step."""
        command = protocol.Generate(job_id=job_id, epoch=epoch, request=request)
        self._in_work[job_id] = command
        if inputs is None:
            self._command(command)
        else:
            self._send(self._with_inputs(command, inputs))

    def _with_inputs(self, command: protocol.Generate, inputs: InputSource) -> Later[ToDriver]:
        """Return what reads the images of a job; where it cannot, that job alone fails."""
        loop, generation = asyncio.get_running_loop(), self._generation

        def read() -> ToDriver | None:
            made = with_inputs(command, inputs, self.name)
            if isinstance(made, events.JobFailed):
                with contextlib.suppress(RuntimeError):  # The loop is closed.
                    loop.call_soon_threadsafe(self._unread, made)
                return None
            return ToEngine(engine=self.actor, generation=generation, command=written(made))

        return read

    def _unread(self, failed: events.JobFailed) -> None:
        """End a job whose images cannot be read, unless that attempt is over."""
        known = self._in_work.get(failed.job_id)
        if known is not None and known.epoch == failed.epoch:
            self._pass_on(failed)

    def adopt(self, job_id: str, request: GenerationSpec, epoch: int) -> None:
        """Take up an attempt that the host went on with."""
        self._in_work[job_id] = protocol.Generate(job_id=job_id, epoch=epoch, request=request)

    def cancel(self, job_id: str) -> None:
        """Take a job out of the batch before the next step; unknown ids are ignored."""
        if job_id in self._in_work:
            self._leaving.add(job_id)
        self._command(protocol.Cancel(job_id=job_id))

    def interrupt(self, job_id: str) -> None:
        """End a job early with its unfinished images; unknown ids are ignored."""
        if job_id in self._in_work:
            self._interrupted.add(job_id)
            self._command(protocol.Interrupt(job_id=job_id))

    def load_model(self, model_id: str) -> None:
        """Load a model while the batch goes on."""
        self._loading.add(model_id)
        self._command(protocol.LoadModel(model_id=model_id))

    def unload_model(self, model_id: str, reason: events.UnloadReason) -> None:
        """Free the memory of a model."""
        self._command(protocol.UnloadModel(model_id=model_id, reason=reason))

    def preview(self, job_id: str, *, wanted: bool) -> None:
        """Begin or end to send previews of a job, and each of its steps."""
        (self._watched.add if wanted else self._watched.discard)(job_id)
        self._watch(job_id, wanted=wanted)

    def _watch(self, job_id: str, *, wanted: bool) -> None:
        watch = partial(Watch, engine=self.actor, generation=self._generation)
        self._send(watch(job_id=job_id, wanted=wanted))
        self._command(protocol.Preview(job_id=job_id, wanted=wanted))

    def _command(self, command: protocol.Command) -> None:
        if self._generation:
            data = written(command)
            self._send(ToEngine(engine=self.actor, generation=self._generation, command=data))

    def attached(self, said: EngineAttached) -> None:
        """Hear a host that obeys a new generation, and agree with it on what it has in work."""
        if self.state is EngineState.STOPPED:
            self._early = [partial(self.attached, said)]
            return
        if said.generation < self._generation:
            return
        self._generation, self.gpu = said.generation, said.gpu
        self._hear()
        was_ready = self.state is EngineState.READY
        if was_ready and (said.starts != self._starts or not said.ready):
            self._exited("lost")  # Its child ended while the service could not reach it.
            self._generation = said.generation
        self._starts = said.starts
        self._inspector = self._new_inspector()
        held = {(each.job_id, each.epoch) for each in said.held}
        for job_id, command in list(self._in_work.items()):
            if (job_id, command.epoch) not in held:
                self._forget(job_id)
        # Before it is ready: what it goes on with must not be started here once more.
        self._listener(protocol.EngineAdopted(jobs=said.held))
        if said.ready:
            self._hear_event(said.ready)
        if self._generation != said.generation:
            return
        unknown = [each for each in said.held if not self._has(each)]
        for each in unknown:
            self._acknowledge(each.job_id, each.epoch)  # Nobody waits for it.
        self._adopted(len(said.held) - len(unknown))
        self._repeat()

    def _has(self, held: protocol.Held) -> bool:
        known = self._in_work.get(held.job_id)
        return known is not None and known.epoch == held.epoch

    def _repeat(self) -> None:
        """Say again what a driver may have taken with it."""
        for job_id in self._leaving & self._in_work.keys():
            self._command(protocol.Cancel(job_id=job_id))
        for job_id in self._interrupted & self._in_work.keys():
            self._command(protocol.Interrupt(job_id=job_id))
        for job_id in self._watched & self._in_work.keys():
            self._watch(job_id, wanted=True)
        for model_id in self._loading:
            self._command(protocol.LoadModel(model_id=model_id))

    def alive(self, said: Alive) -> None:
        """Take a sign of life of the host, and what it says of its child."""
        if said.generation == self._generation:
            was_late = self.late
            self._hear()
            self._pulse = said.silence, said.late
            if was_late and not self.late:
                # The dispatcher is to look whether something can start.
                self._listener(protocol.StageStarted(stage=Stage.WAKE))

    def heard(self, said: FromEngine) -> None:
        """Take events, in their order."""
        if self._early:  # The host keeps results, but sends them once to each attachment.
            self._early.append(partial(self.heard, said))
            return
        if said.generation != self._generation:
            return
        self._hear()
        for data in said.events:
            self._hear_event(data)
            if said.generation != self._generation:  # What comes after garbage is not heard.
                return

    def cut_off(self) -> None:
        """Take note that the driver is gone; another one may find the host again in time."""
        self._cut_off = True

    def gone(self, reason: str) -> None:
        """Take note that the actor ended, with all that it had."""
        self._log.warning("engine_actor_ended", reason=reason)
        self._exited("lost")

    def _hear(self) -> None:
        self._heard, self._cut_off = self._now(), False

    def _hear_event(self, data: bytes) -> None:
        try:
            said = REMOTE_EVENTS.read(data)
            if (known := self._known(said)) is not None and self._inspected(known):
                self._pass_on(known)
        except GarbageError as error:
            self._log.error("engine_garbage", reason=str(error))
            self._exited("garbage")
            self._send(End(engine=self.actor, reason="garbage"))

    def _inspected(self, said: protocol.EngineEvent | protocol.EngineExited) -> bool:
        if isinstance(said, protocol.EngineExited):
            check_exit(said)
            return True
        return self._inspector.check(said)

    def _known(
        self, said: protocol.EngineEvent | protocol.EngineExited
    ) -> protocol.EngineEvent | protocol.EngineExited | None:
        """Return an event without the attempts that nobody waits for; None if nothing is left."""
        match said:
            case protocol.EngineReady() if self.state is EngineState.READY:
                self._inspector = self._new_inspector()
                self._inspector.check(said)
                return None
            case events.AttemptEvent() if said.job_id not in self._in_work:
                if isinstance(said, Result):
                    self._acknowledge(said.job_id, said.epoch)
                return None
            case events.Stepped():
                jobs = said.progress.keys() & self._in_work.keys()
                if jobs == said.progress.keys():
                    return said
                return narrowed(said, jobs) if jobs else None
        return said

    def _pass_on(self, said: protocol.EngineEvent | protocol.EngineExited) -> None:
        match said:
            case protocol.EngineReady():
                self.state, self.model, self.failure = EngineState.READY, said.model, ""
            case protocol.EngineFailed():
                self.state, self.failure = EngineState.FAILED, said.detail
            case protocol.EngineExited():
                self._lose()
                self._starts += 1
                self._inspector = self._new_inspector()
                said = replace(said, restarts=self.restarts)
            case events.ModelLoaded() | events.ModelFailed():
                self._loading.discard(said.model_id)
            case events.JobFinished() | events.JobFailed() | events.JobCancelled():
                self._forget(said.job_id)
                self._listener(said)
                self._acknowledge(said.job_id, said.epoch)
                return
        self._listener(said)

    def _acknowledge(self, job_id: str, epoch: int) -> None:
        acknowledge = partial(Acknowledge, engine=self.actor, generation=self._generation)
        self._send(acknowledge(job_id=job_id, epoch=epoch))

    def _forget(self, job_id: str) -> None:
        self._in_work.pop(job_id, None)
        for ids in (self._leaving, self._interrupted, self._watched):
            ids.discard(job_id)

    def _lose(self) -> None:
        """Take note that a child ended: what it had is lost."""
        self.state = EngineState.RESTARTING
        self.restarts += 1
        self._in_work.clear()
        for ids in (self._leaving, self._interrupted, self._watched, self._loading):
            ids.clear()

    def _exited(self, cause: str) -> None:
        """Take the engine for ended, and hear no more of this attachment."""
        self._generation = 0
        if self.state in {EngineState.STOPPED, EngineState.RESTARTING}:
            return
        self._lose()
        self._listener(protocol.EngineExited(exit_code=None, restarts=self.restarts, cause=cause))

    def _new_inspector(self) -> Inspector:
        return Inspector(*(self._in_work, self._leaving, self._interrupted, self.name), hosted=True)

    def _look_later(self) -> None:
        due = self._now() + 1.0
        self._timer = asyncio.get_running_loop().call_at(due, self._look, due)

    def _look(self, due: float) -> None:
        """Look once a second whether the host was heard."""
        now = self._now()
        if now - due > ASLEEP_SECONDS:
            self._heard = now  # What it said meanwhile may be on its way.
        silent = now - self._heard
        if self._generation and silent > LOST_SECONDS:
            self._log.error("engine_lost", seconds=round(silent, 3))
            self._exited("lost")
            self._send(Attach(engine=self.actor))
        self._look_later()
