"""An engine without a model: the same behaviour in memory, for tests and for trying clients."""

import asyncio
import contextlib
import zlib
from collections.abc import Mapping
from dataclasses import replace

from service.core.events import (
    MODEL_NOT_LOADED,
    JobCancelled,
    JobFailed,
    JobFinished,
    OutOfMemoryHit,
    Previewed,
    Stepped,
    UnloadReason,
)
from service.core.image import RawImage
from service.core.inputs import EngineInputs, InputSource
from service.core.model import ModelInfo
from service.core.spec import GenerationSpec
from service.core.stage import OomRung, Stage, StageTimes
from service.engine.base import Engine, EngineState, Listener
from service.engine.faults import FaultInjector
from service.engine.protocol import EngineExited, EngineFailed, EngineReady, Event
from service.errors import ModelError, OutOfMemory, ServiceError
from tests.support.simulation.fake_models import DEFAULT, FakeModel, FakeModels

FAKE_MODEL = ModelInfo(
    model_id="fake",
    version="fake-1",
    family="sd",
    demo=True,
    device="cpu",
    gpu=False,
    dtype="float32",
    load_seconds=0.0,
)


class FakeEngine(Engine):
    """Batches, steps and honours cancels like the real engine; images are gradients.

    With ``step_seconds`` it steps by itself at that pace; with None only ``step`` moves
    it. With ``loads=False`` it stays in ``LOADING`` (and, after a crash, in
    ``RESTARTING``) until ``become_ready`` or ``fail_to_load``. ``faults`` are committed as the
    real engine commits them; it knows no ladder but one more try. ``models`` are those that can
    be loaded next to ``model``, ``held`` what became of them.
    """

    def __init__(
        self,
        *,
        step_seconds: float | None = 0.0,
        loads: bool = True,
        model: ModelInfo = FAKE_MODEL,
        faults: FaultInjector | None = None,
        models: Mapping[str, FakeModel] | None = None,
        room: int = 1,
        host_room: int = 0,
    ) -> None:
        self.batch: dict[str, GenerationSpec] = {}
        """The jobs in work, the oldest first."""
        self.given: list[GenerationSpec] = []
        """All requests that were ever taken into the batch, in that order."""
        self.inputs: dict[str, EngineInputs | None] = {}
        """The images that each job came with, by its id."""
        self.cancelled: list[str] = []
        """Ids of the jobs that were taken out."""
        self.interrupted: list[str] = []
        """Ids of the jobs that were told to end early."""
        self.watched: set[str] = set()
        """Ids of the jobs whose previews are wanted."""
        self.steps = 0
        """Steps done since the start, by whole batches."""
        self._step_seconds = step_seconds
        self._loads = loads
        self._faults = faults or FaultInjector()
        self._loading = model
        self.held = FakeModels(
            {DEFAULT: FakeModel(info=model)} | dict(models or {}),
            room=room,
            host_room=host_room,
            tell=self._tell,
            busy=lambda: {request.model for request in self.batch.values()},
        )
        self._done: dict[str, int] = {}
        self._ending: set[str] = set()
        self._epochs: dict[str, int] = {}
        self._listener: Listener | None = None
        self._joined = asyncio.Condition()
        self._notices: set[asyncio.Task[None]] = set()
        self._pace: asyncio.Task[None] | None = None

    async def start(self, listener: Listener) -> None:
        """Begin to load, which takes no time unless ``loads`` is False."""
        self._listener = listener
        self.state = EngineState.LOADING
        if self._step_seconds is not None:
            self._pace = asyncio.create_task(self._run(self._step_seconds), name="fake-engine")
        if self._loads:
            self.become_ready()

    async def stop(self) -> None:
        """Forget all jobs; no event follows."""
        self.state = EngineState.STOPPED
        self._listener = None
        self._forget()
        if self._pace is not None:
            self._pace.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._pace

    def generate(
        self,
        job_id: str,
        request: GenerationSpec,
        epoch: int,
        inputs: InputSource | None = None,
    ) -> None:
        """Let a job join the batch before the next step, unless its model is not loaded.

        Its images are read at once.
        """
        if self.held.device and request.model not in self.held.device:
            failed = JobFailed(job_id=job_id, epoch=epoch, code=MODEL_NOT_LOADED, detail="")
            asyncio.get_running_loop().call_soon(self._tell, failed)
            return
        try:
            self.inputs[job_id] = inputs() if inputs else None
        except ServiceError as error:
            failed = JobFailed(job_id=job_id, epoch=epoch, code=error.code, detail=error.detail)
            asyncio.get_running_loop().call_soon(self._tell, failed)
            return
        self.held.touch(request.model)
        self.given.append(request)
        self.batch[job_id] = request
        self._epochs[job_id] = epoch
        self._done[job_id] = 0
        self._notify()

    def cancel(self, job_id: str) -> None:
        """Take a job out of the batch; unknown ids are ignored."""
        if self.batch.pop(job_id, None) is None:
            return
        self.inputs.pop(job_id, None)
        self.cancelled.append(job_id)
        done = self._done.pop(job_id)
        times = StageTimes(denoise=done * (self._step_seconds or 0.0))
        epoch = self._epochs[job_id]
        self._tell(JobCancelled(job_id=job_id, epoch=epoch, steps_done=done, times=times))
        self._notify()

    def interrupt(self, job_id: str) -> None:
        """End a job early: with the steps that it has, or after its first one."""
        if job_id not in self.batch:
            return
        self.interrupted.append(job_id)
        self._ending.add(job_id)
        if self._done[job_id]:
            self._finish(job_id, self.batch[job_id])

    def load_model(self, model_id: str) -> None:
        """Load a model, which takes its seconds."""
        self.held.load(model_id)

    def unload_model(self, model_id: str, reason: UnloadReason) -> None:
        """Free the memory of a model without jobs."""
        self.held.unload(model_id, reason)

    def preview(self, job_id: str, *, wanted: bool) -> None:
        """Send a preview of a job after each step, or no more."""
        (self.watched.add if wanted else self.watched.discard)(job_id)

    async def jobs(self, count: int) -> tuple[str, ...]:
        """Wait until exactly ``count`` jobs are in the batch and return their ids."""
        async with self._joined:
            await self._joined.wait_for(lambda: len(self.batch) == count)
        return tuple(self.batch)

    async def step(self, count: int = 1) -> None:
        """Do ``count`` denoising steps with whatever is in the batch."""
        for _ in range(count):
            self._step()
            await asyncio.sleep(0)

    def become_ready(self) -> None:
        """Finish loading."""
        self.state, self.model = EngineState.READY, self._loading
        self.held.begin()
        self._tell(EngineReady(model=self._loading))

    def fail_to_load(self, detail: str = "The weights are missing.") -> None:
        """End loading without a model, for good."""
        self.state, self.failure = EngineState.FAILED, detail
        self._tell(EngineFailed(code=ModelError.code, detail=detail))

    def fail(self, code: str = "generation_failed", detail: str = "It was told to fail.") -> None:
        """End every job in the batch with an error."""
        self._fail(tuple(self.batch), code, detail)

    def run_out_of_memory(self, stage: Stage = Stage.DENOISE) -> None:
        """Hit the end of memory at a stage; every job in the batch fails."""
        self._tell(OutOfMemoryHit(stage=stage, batch_size=self._images))
        self.fail(OutOfMemory.code, f"Memory ran out at the stage {stage}.")

    def crash(self, exit_code: int = -9) -> None:
        """End like a killed process, with all jobs; loading starts again."""
        self._forget()
        self.state = EngineState.RESTARTING
        self.restarts += 1
        self._tell(EngineExited(exit_code=exit_code, restarts=self.restarts))
        if self._loads:
            asyncio.get_running_loop().call_soon(self.become_ready)

    @property
    def _images(self) -> int:
        return sum(request.num_images for request in self.batch.values())

    async def _run(self, seconds: float) -> None:
        while True:
            async with self._joined:
                await self._joined.wait_for(lambda: bool(self.batch))
            await asyncio.sleep(seconds)
            self._step()

    def _step(self) -> None:
        if not self.batch:
            return
        new = tuple(job_id for job_id, done in self._done.items() if done == 0)
        if new and not self._survives(Stage.TEXT_ENCODE, new):
            return
        if not self._survives(Stage.DENOISE, tuple(self.batch)):
            return
        self.steps += 1
        for job_id in self.batch:
            self._done[job_id] += 1
        seconds = self._step_seconds or 0.0
        self._tell(
            Stepped(
                progress=dict(self._done),
                batch_size=self._images,
                pixels=sum(r.width * r.height * r.num_images for r in self.batch.values()),
                seconds=seconds,
                shares=dict.fromkeys(self.batch, seconds / len(self.batch)),
                epochs={job_id: self._epochs[job_id] for job_id in self.batch},
            )
        )
        for job_id in [job_id for job_id in self.batch if job_id in self.watched]:
            shown = self.batch[job_id], self._done[job_id], self._epochs[job_id]
            self._tell(preview(job_id, *shown))
        for job_id, request in list(self.batch.items()):
            if self._done[job_id] >= request.total_steps or job_id in self._ending:
                self._finish(job_id, request)

    def _survives(self, stage: Stage, jobs: tuple[str, ...]) -> bool:
        """Let the faults have their say: a first one is tried again, a second fails ``jobs``."""
        images = sum(self.batch[job_id].num_images for job_id in jobs)
        for rung in (OomRung.FREE_CACHE, OomRung.FAIL):
            try:
                self._faults(stage, images)
            except MemoryError as error:
                self._tell(OutOfMemoryHit(stage=stage, batch_size=images, rung=rung))
                detail = str(error)
            else:
                return True
        self._fail(jobs, OutOfMemory.code, detail)
        return False

    def _finish(self, job_id: str, request: GenerationSpec) -> None:
        if not self._survives(Stage.VAE_DECODE, (job_id,)):
            return
        done = self._done.pop(job_id)
        self._ending.discard(job_id)
        del self.batch[job_id]
        words, words_read = len(request.prompt.split()), self._loading.prompt_tokens - 2
        self._tell(
            JobFinished(
                job_id=job_id,
                epoch=self._epochs[job_id],
                images=self._drawn(job_id, request, done),
                times=StageTimes(denoise=done * (self._step_seconds or 0.0)),
                interrupted_after=done if done < request.total_steps else None,
                prompt_tokens=words,
                prompt_tokens_cut=max(words - words_read, 0),
            )
        )
        self._notify()

    def _drawn(self, job_id: str, request: GenerationSpec, done: int) -> tuple[RawImage, ...]:
        """Return an image for each seed, which depends on the subseed and on the input images.

        Of a job that ended in its first pass it has the size of that.
        """
        given = self.inputs.pop(job_id, None)
        inputs = zlib.crc32(given.mask, zlib.crc32(given.image)) if given else 0
        of_subseeds = [each if request.subseed_strength else 0 for each in request.subseeds]
        size = request.width, request.height
        width, height = request.drawn_size if done > request.first_steps else size
        sized = replace(request, width=width, height=height)
        return tuple(
            replace(gradient(sized, seed ^ other ^ inputs), seed=seed)
            for seed, other in zip(request.seeds, of_subseeds, strict=True)
        )

    def _fail(self, jobs: tuple[str, ...], code: str, detail: str) -> None:
        for job_id in jobs:
            del self.batch[job_id], self._done[job_id]
            self.inputs.pop(job_id, None)
            epoch = self._epochs[job_id]
            self._tell(JobFailed(job_id=job_id, epoch=epoch, code=code, detail=detail))
        self._notify()

    def _forget(self) -> None:
        self.batch.clear()
        self.inputs.clear()
        self.held.forget()
        self._ending.clear()
        self.watched.clear()  # A new engine has to be told again.
        self._done.clear()

    def _tell(self, event: Event) -> None:
        if self._listener is not None:
            self._listener(event)

    def _notify(self) -> None:
        self.held.pump()  # A model that had to stay may go now.

        async def notify() -> None:
            async with self._joined:
                self._joined.notify_all()

        notice = asyncio.get_running_loop().create_task(notify())
        self._notices.add(notice)
        notice.add_done_callback(self._notices.discard)


def gradient(request: GenerationSpec, seed: int) -> RawImage:
    """Return a diagonal gradient that is the same for the same seed and size."""
    red, green, blue = seed & 255, seed >> 8 & 255, seed >> 16 & 255
    row = b"".join(
        bytes(((red + x) & 255, (green + 2 * x) & 255, (blue + (seed >> 24)) & 255))
        for x in range(request.width)
    )
    ring = row * 2
    starts = (3 * (y % request.width) for y in range(request.height))
    pixels = b"".join(ring[start : start + len(row)] for start in starts)
    return RawImage(width=request.width, height=request.height, pixels=pixels, seed=seed)


def preview(job_id: str, request: GenerationSpec, step: int, epoch: int = 1) -> Previewed:
    """Return a job's gradient at an eighth of its size, as bright as its steps are many."""
    small = gradient(
        replace(request, width=request.width // 8, height=request.height // 8), request.seed
    )
    pixels = bytes(value * step // request.total_steps for value in small.pixels)
    return Previewed(
        job_id=job_id,
        epoch=epoch,
        step=step,
        width=small.width,
        height=small.height,
        pixels=pixels,
    )
