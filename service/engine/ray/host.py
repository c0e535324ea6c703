"""Host of one engine process on a machine with a GPU: a lease, and a wire to the service.

It has what must hold where nobody sees the service, and knows nothing of Ray: the actor around it
passes calls on. Whoever calls is told by a generation; a host obeys the highest that it has seen,
and nobody any more when the lease is over. For a host that hangs its child looks at the lease.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import structlog

from service.config.loading import of_engines
from service.config.table import Config
from service.core.events import JobCancelled, JobFailed, JobFinished
from service.core.inputs import EngineInputs, InputSource
from service.engine import protocol
from service.engine.base import EngineState
from service.engine.channel import COMMANDS, written
from service.engine.process import worker
from service.engine.process.child import WorkerMain
from service.engine.process.local import share
from service.engine.process.parent import ProcessEngine
from service.engine.protocol import Held
from service.engine.ray.lease import LOOK_SECONDS, Lease
from service.engine.ray.messages import EngineAttached, EventBatch, Pulse, read_settings
from service.engine.ray.outbox import End, Outbox
from service.images.packing import packed
from service.system.executors import IMAGES

log = structlog.get_logger(__name__)

ForJob = protocol.Generate | protocol.Interrupt | protocol.Preview


class EngineHost:
    """One engine process, its attempts, and what the service has not heard of them.

    ``gpu`` is its GPU, by UUID or index, whatever the settings say; empty means none. It shares its
    machine with others, ``engines`` in all. All methods are called on one event loop.
    """

    def __init__(
        self,
        name: str,
        *,
        gpu: str = "",
        engines: int = 1,
        entry: WorkerMain = worker.run,
        lease: Lease | None = None,
    ) -> None:
        self.name = name
        self.starts = 0
        """Children that were started."""
        self.lease = lease or Lease()
        self._gpu, self._engines, self._entry = gpu, engines, entry
        self._log = log.bind(engine=name)
        self._service, self._generation = "", 0
        self._settings: dict[str, object] = {}
        self._engine: ProcessEngine | None = None
        self._working: dict[str, int] = {}
        """Attempts that the engine has, by job."""
        self._waiting: dict[str, list[ForJob]] = {}
        """What to tell the engine of jobs that it cannot have yet."""
        self._outbox = Outbox()
        self._heard: asyncio.Queue[tuple[ProcessEngine, protocol.Event]] = asyncio.Queue()
        self._changing = asyncio.Lock()
        """Held while the engine is started or stopped."""
        self._packing: asyncio.Task[None] | None = None
        self._keeping: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The child's process id, or None when there is none."""
        return self._engine.pid if self._engine else None

    async def attach(self, service: str, generation: int, settings: bytes) -> bytes:
        """Obey a generation from now on, and begin the stream of events anew.

        The engine is started unless it runs with these settings. Other settings end it, and what
        it made under the earlier ones is forgotten. The answer is empty for an older generation,
        and for another service while one renews its lease.

        Raises:
            GarbageError: these are no settings.

        """
        others = self._engine is not None and service != self._service
        if generation < self._generation or (others and not self.lease.lost):
            return b""
        config = read_settings(settings)
        self._keeping = self._keeping or asyncio.create_task(self._keep_lease())
        self._service, self._generation = service, generation
        async with self._changing:
            failed = self._engine is not None and self._engine.state is EngineState.FAILED
            if self.lease.lost or failed:
                await self._end()
            if of_engines(config) != self._settings:
                await self._end()
                self._outbox.clear()
            if self._engine is None:
                self.lease.restart()
                own = share(config, self._engines) if self._engines > 1 else config
                await self._begin(replace(own, cuda_visible_devices=self._gpu))
            self._settings = of_engines(config)
            self._outbox.open()
            self._outbox.replay()
        self._log.info("host_attached", service=service, generation=generation)
        return written(
            EngineAttached(
                engine=self.name,
                generation=generation,
                held=self.held,
                ready=self._outbox.ready,
                starts=self.starts,
                gpu=self._gpu,
                pulse=self.lease.pulse(),
            )
        )

    @property
    def held(self) -> tuple[Held, ...]:
        """Return the attempts in work, and those whose ends are kept."""
        work = [Held(job_id=job_id, epoch=epoch) for job_id, epoch in self._working.items()]
        commands = [each for told in self._waiting.values() for each in told]
        generates = [each for each in commands if isinstance(each, protocol.Generate)]
        waiting = [Held(job_id=each.job_id, epoch=each.epoch) for each in generates]
        # An attempt that another one waits for is to end without a word.
        work = [each for each in work if each.job_id not in self._waiting]
        return (*work, *waiting, *self._outbox.held)

    async def renew(self, generation: int, heard: int) -> bytes:
        """Renew the lease and answer how the child is; an empty answer to who has none.

        ``heard`` is the number of the last answer that has arrived.
        """
        engine = await self._obeying(generation)
        if engine is None:
            return b""
        self.lease.renew(heard)
        self._start_waiting(engine)
        return written(Pulse(number=self.lease.pulse(), silence=engine.silence, late=engine.late))

    async def command(self, generation: int, data: bytes) -> bool:
        """Obey a command; return False to who has no lease.

        Each attempt is begun once, however often it is told, and never an earlier one.

        Raises:
            GarbageError: it is none.

        """
        engine = await self._obeying(generation)
        if engine is None:
            return False
        match COMMANDS.read(data):
            case protocol.Generate() as generate:
                self._generate(engine, generate)
            case protocol.Cancel(job_id=job_id):
                self._cancel(engine, job_id)
            case protocol.Interrupt() | protocol.Preview() as command:
                if command.job_id in self._waiting:
                    self._waiting[command.job_id].append(command)
                else:
                    tell(engine, command)
            case protocol.LoadModel(model_id=model_id):
                engine.load_model(model_id)
            case protocol.UnloadModel(model_id=model_id, reason=reason):
                engine.unload_model(model_id, reason)
            case protocol.Shutdown():
                async with self._changing:
                    await self._end(at_once=False)
        return True

    async def watch(self, generation: int, job_id: str, wanted: bool) -> bool:
        """Send the steps of a job sooner, or no more so; return False to who has no lease."""
        if await self._obeying(generation) is None:
            return False
        if not wanted:
            self._outbox.watched.discard(job_id)
        elif job_id in self._working or job_id in self._waiting:  # Else nothing would end it.
            self._outbox.watched.add(job_id)
        return True

    async def acknowledge(self, generation: int, job_id: str, epoch: int) -> bool:
        """Forget the end of an attempt, which has arrived; return False to who has no lease."""
        if await self._obeying(generation) is None:
            return False
        self._outbox.acknowledge(job_id, epoch)
        return True

    async def events(self, generation: int) -> AsyncIterator[bytes]:
        """Yield batches of events until another reader comes, an empty one at least each second."""
        if generation != self._generation:
            return
        reader = self._outbox.open()
        while (batch := await self._outbox.take(reader)) is not None:
            yield written(EventBatch(events=batch))

    async def check(self) -> None:
        """End the engine if the lease is over."""
        if self.lease.lost and self._engine is not None:
            async with self._changing:
                if self.lease.lost and self._engine is not None:
                    self._log.warning("lease_lost", seconds=round(self.lease.age, 1))
                    await self._end()

    async def stop(self) -> None:
        """End the engine and forget everything."""
        if self._keeping is not None:
            self._keeping.cancel()
        async with self._changing:
            await self._end()
            self._outbox.clear()

    async def _keep_lease(self) -> None:
        """Look at the lease for ever, and end the engine when it is over."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self.check()
            except Exception:  # The next look is to come.
                log.exception("lease_check_failed", engine=self.name)

    async def _obeying(self, generation: int) -> ProcessEngine | None:
        """Return the engine if this caller is obeyed; first, a thawed host ends what it missed."""
        await self.check()
        return self._engine if generation == self._generation else None

    async def _begin(self, config: Config) -> None:
        self.starts += 1
        engine = ProcessEngine(config, entry=self._entry)
        engine.name = self.name
        self._engine = engine
        self._packing = asyncio.create_task(self._pass_on())
        await engine.start(lambda event: self._hear(engine, event))

    async def _end(self, *, at_once: bool = True) -> None:
        """End the engine with its unfinished attempts; ends of attempts are kept."""
        engine, self._engine = self._engine, None
        self._forget_work()
        self._outbox.lose()
        if engine is not None:
            await engine.stop(at_once=at_once)
        if self._packing is not None:
            await self._heard.join()
            self._packing.cancel()
            self._packing = None

    def _forget_work(self) -> None:
        self._working.clear()
        self._waiting.clear()
        self._outbox.watched.clear()

    def _generate(self, engine: ProcessEngine, command: protocol.Generate) -> None:
        job_id = command.job_id
        if engine.state is not EngineState.READY:
            return  # It has ended since: that it did is on its way, and this job runs again.
        known = self._epoch(job_id)
        if known is not None and command.epoch <= known:
            if self._outbox.epoch(job_id) == command.epoch:
                self._outbox.resend(job_id)
            return
        self._outbox.forget(job_id)
        self._waiting[job_id] = [command]
        if job_id in self._working:
            engine.cancel(job_id)
        self._start_waiting(engine)

    def _epoch(self, job_id: str) -> int | None:
        """Return the latest attempt at a job that is known here."""
        told = self._waiting.get(job_id, ())
        known = [each.epoch for each in told if isinstance(each, protocol.Generate)]
        kept = (self._working.get(job_id), self._outbox.epoch(job_id))
        return max([*known, *(epoch for epoch in kept if epoch is not None)], default=None)

    def _start_waiting(self, engine: ProcessEngine) -> None:
        """Hand over what waits: for a lease that is renewed, or for the end of an old attempt."""
        if self.lease.resting:
            return
        for job_id in [job_id for job_id in self._waiting if job_id not in self._working]:
            for command in self._waiting.pop(job_id):
                if isinstance(command, protocol.Generate):
                    self._working[job_id] = command.epoch
                tell(engine, command)

    def _cancel(self, engine: ProcessEngine, job_id: str) -> None:
        for command in self._waiting.pop(job_id, ()):
            if isinstance(command, protocol.Generate):
                self._outbox.expect(job_id, command.epoch)
                self._outbox.add(JobCancelled(job_id=job_id, epoch=command.epoch))
        if job_id in self._working:
            engine.cancel(job_id)

    def _hear(self, engine: ProcessEngine, event: protocol.Event) -> None:
        """Take note of what the engine says; it is sent in the same order, images packed."""
        match event:
            case protocol.StageStarted():
                return  # It is for the watchdog, which is here.
            case protocol.EngineExited():
                self.starts += 1
                self._forget_work()
            case JobFinished() | JobFailed() | JobCancelled():
                epoch = self._working.pop(event.job_id)
                if event.job_id not in self._waiting:  # Else the end of an attempt before.
                    self._outbox.expect(event.job_id, epoch)
                self._start_waiting(engine)
        self._heard.put_nowait((engine, event))

    async def _pass_on(self) -> None:
        """Put what was heard into the outbox, one event after the other."""
        while True:
            engine, said = await self._heard.get()
            try:
                if isinstance(said, JobFinished):
                    said = await self._packed(said)
                if engine is self._engine or isinstance(said, End):
                    self._outbox.add(said)
            except Exception:  # What comes after it is to pass.
                log.exception("event_not_sent", engine=self.name, kind=type(said).__name__)
            finally:
                self._heard.task_done()

    async def _packed(self, finished: JobFinished) -> JobFinished:
        """Return a finished job with its images packed, or as it is where that fails."""
        try:
            images = [await IMAGES.run(packed, image) for image in finished.images]
        except (OSError, ValueError, MemoryError):
            self._log.exception("images_not_packed", job_id=finished.job_id)
            return finished
        return replace(finished, images=tuple(images))


def tell(engine: ProcessEngine, command: ForJob) -> None:
    """Give an engine a command about one job."""
    match command:
        case protocol.Generate(job_id=job_id, request=request, epoch=epoch, inputs=inputs):
            engine.generate(job_id, request, epoch, None if inputs is None else _as_read(inputs))
        case protocol.Interrupt(job_id=job_id):
            engine.interrupt(job_id)
        case protocol.Preview(job_id=job_id, wanted=wanted):
            engine.preview(job_id, wanted=wanted)


def _as_read(inputs: EngineInputs) -> InputSource:
    return lambda: inputs
