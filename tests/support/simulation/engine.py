"""A model of the step loop that takes virtual time and makes no images."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from service.core.events import MODEL_NOT_LOADED, JobFailed, JobFinished, Stepped, UnloadReason
from service.core.inputs import InputSource
from service.core.spec import GenerationSpec
from service.core.stage import StageTimes
from service.core.work import EVALUATIONS, REST_STEPS, pixels
from service.engine.base import Engine, EngineState, Listener
from service.engine.protocol import EngineExited, EngineReady, Event
from tests.support.simulation.fake_engine import FAKE_MODEL
from tests.support.simulation.fake_models import DEFAULT, FakeModel, FakeModels

PIXEL_STEP: Final = 0.065 / 512**2
"""Seconds of a step per pixel: 65 ms for 512x512."""


class Row:
    """A job of one image in the batch."""

    def __init__(self, job_id: str, epoch: int, request: GenerationSpec, arrived: int) -> None:
        """Set up; ``arrived`` are the engine's pixel steps when it came."""
        self.job_id, self.epoch, self.request = job_id, epoch, request
        self.done = 0
        """Evaluations that it has had."""
        self._arrived = arrived
        # What is drawn in each evaluation: twice where there is a second pass.
        each = (replace(request, hires=None) if request.hires else request, request.second)
        self._plan = [
            (pixels(one), one.width)
            for one in each
            if one
            for _ in range(one.first_steps * EVALUATIONS[one.sampler])
        ]
        self._rest = sum(size for size, _ in self._plan)

    @property
    def moving(self) -> bool:
        """Whether an evaluation is left."""
        return self.done < len(self._plan)

    @property
    def next(self) -> tuple[int, int]:
        """Pixels and width of the next evaluation."""
        return self._plan[self.done]

    def end(self) -> None:
        """Take one more evaluation at most."""
        del self._plan[self.done + 1 :]
        self._rest = sum(size for size, _ in self._plan[self.done :])

    def urgency(self, clock: int) -> float:
        """Return the response ratio, as ``service.diffusion.loop.order`` does."""
        return (clock - self._arrived + self._rest) / self._rest

    def step(self) -> int:
        """Do an evaluation; return its pixels."""
        size, _ = self._plan[self.done]
        self.done += 1
        self._rest -= size
        return size


class SimulatedEngine(Engine):
    """Moves up to ``batch`` rows of one size a step, the size with the most urgent row first.

    Between two steps one image is decoded.
    """

    def __init__(
        self,
        *,
        batch: int,
        pixel_step: float = PIXEL_STEP,
        models: Mapping[str, FakeModel] | None = None,
        room: int = 1,
        host_room: int = 0,
    ) -> None:
        self._batch = batch
        self._pixel_step = pixel_step
        self._rows: dict[str, Row] = {}
        self._clock = 0
        self._decoded = False
        self._busy = False
        self._life = 0
        """Times that it has lost its jobs: what an earlier life was about to do is not done."""
        self._dead = False
        self.ended: Counter[str] = Counter()
        """How often it ended, by cause."""
        self._unheard: list[Event] | None = None
        """What it says while nobody hears it."""
        self.held = FakeModels(
            {DEFAULT: FakeModel(info=FAKE_MODEL)} | dict(models or {}),
            room=room,
            host_room=host_room,
            tell=self._tell,
            busy=lambda: {row.request.model for row in self._rows.values()},
        )

    async def start(self, listener: Listener) -> None:
        """Be ready at once."""
        self._listener, self.model = listener, FAKE_MODEL
        self._ready(self._life)

    async def stop(self) -> None:
        """Forget all jobs."""
        self.state = EngineState.STOPPED
        self._forget()

    def fail(self, *, detected: float, restart: float) -> bool:
        """Die: it is ended after ``detected`` seconds and ready again after ``restart`` more.

        Return False, and do nothing, while it is not ready.
        """
        if self.state is not EngineState.READY or self._dead or self._unheard is not None:
            return False
        self._forget()
        self._dead = True
        asyncio.get_running_loop().call_later(detected, self._exit, "killed", restart)
        return True

    def part(self, *, detected: float, restart: float, heard: float) -> bool:
        """Work on unheard until it is ended, and say all that after ``heard`` seconds.

        It is ended and ready again as after ``fail``.
        """
        if self.state is not EngineState.READY or self._dead or self._unheard is not None:
            return False
        self._unheard = []
        loop = asyncio.get_running_loop()
        loop.call_later(heard, self._thaw, self._unheard)
        loop.call_later(detected, self._exit, "lost", restart)
        return True

    def _tell(self, event: Event) -> None:
        if self._unheard is None:
            self._listener(event)
        else:
            self._unheard.append(event)

    def _thaw(self, events: list[Event]) -> None:
        for event in events:
            self._listener(event)

    def _forget(self) -> None:
        self._rows.clear()
        self._life += 1
        self._busy = False

    def _exit(self, cause: str, restart: float) -> None:
        self._forget()
        self.held.forget()
        self._dead, self._unheard = False, None
        self.state = EngineState.RESTARTING
        self.restarts += 1
        self.ended[cause] += 1
        self._tell(
            EngineExited(exit_code=-9, restarts=self.restarts, cause=cause, restart_seconds=restart)
        )
        asyncio.get_running_loop().call_later(restart, self._ready, self._life)

    def _ready(self, life: int) -> None:
        if life != self._life:
            return
        self.state = EngineState.READY
        self.held.begin()
        self._tell(EngineReady(model=FAKE_MODEL))

    def cancel(self, job_id: str) -> None:
        """Take a job out before the next step."""
        self._rows.pop(job_id, None)
        self.held.pump()

    def interrupt(self, job_id: str) -> None:
        """Let a job have one more step at most."""
        if row := self._rows.get(job_id):
            row.end()

    def load_model(self, model_id: str) -> None:
        """Load a model, which takes its seconds."""
        self.held.load(model_id)

    def unload_model(self, model_id: str, reason: UnloadReason) -> None:
        """Free the memory of a model without jobs."""
        self.held.unload(model_id, reason)

    def generate(
        self,
        job_id: str,
        request: GenerationSpec,
        epoch: int,
        inputs: InputSource | None = None,
    ) -> None:
        """Let a job join before the next step, unless its model is not loaded."""
        del inputs  # It makes no images.
        if self._dead:
            return
        if request.model not in self.held.device:
            failed = JobFailed(job_id=job_id, epoch=epoch, code=MODEL_NOT_LOADED, detail="")
            asyncio.get_running_loop().call_soon(self._tell, failed)
            return
        self.held.touch(request.model)
        self._rows[job_id] = Row(job_id, epoch, request, self._clock)
        if not self._busy:
            self._busy = True
            asyncio.get_running_loop().call_soon(self._begin, self._life)

    def _begin(self, life: int) -> None:
        """Begin to decode an image or to move a batch; go on when it is done."""
        if life != self._life:
            return
        finished = [row for row in self._rows.values() if not row.moving]
        moving = [row for row in self._rows.values() if row.moving]
        self._busy = bool(self._rows)
        if not self._busy:
            return
        self._decoded = bool(finished) and not (self._decoded and moving)
        if self._decoded:
            row = finished[0]
            seconds = REST_STEPS * pixels(row.request) * self._pixel_step
            asyncio.get_running_loop().call_later(seconds, self._end_decode, row, seconds, life)
            return
        groups: dict[tuple[str, int], list[Row]] = defaultdict(list)
        for row in sorted(moving, key=lambda row: -row.urgency(self._clock)):
            # The most urgent row's model and size come first.
            groups[row.request.model, row.next[1]].append(row)
        batch = next(iter(groups.values()))[: self._batch]
        seconds = sum(row.next[0] for row in batch) * self._pixel_step
        asyncio.get_running_loop().call_later(seconds, self._end_step, batch, seconds, life)

    def _end_decode(self, row: Row, seconds: float, life: int) -> None:
        if life != self._life:
            return
        if self._rows.pop(row.job_id, None):
            times = StageTimes(vae_decode=seconds)
            self._tell(JobFinished(job_id=row.job_id, epoch=row.epoch, images=(), times=times))
            self.held.pump()
        self._begin(life)

    def _end_step(self, batch: list[Row], seconds: float, life: int) -> None:
        if life != self._life:
            return
        sizes = {row.job_id: row.step() for row in batch}
        self._clock += sum(sizes.values())
        done = {row.job_id: row.done for row in batch}
        shares = {job_id: size * self._pixel_step for job_id, size in sizes.items()}
        self._tell(
            Stepped(
                progress=done,
                shares=shares,
                epochs={row.job_id: row.epoch for row in batch},
                batch_size=len(batch),
                pixels=sum(sizes.values()),
                seconds=seconds,
                model_id=batch[0].request.model,
            )
        )
        self._begin(life)
