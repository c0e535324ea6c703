"""A model of the step loop that takes virtual time and makes no images."""

import asyncio
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from service.core.events import MODEL_NOT_LOADED, JobFailed, JobFinished, Stepped, UnloadReason
from service.core.inputs import InputSource
from service.core.spec import GenerationSpec
from service.core.stage import StageTimes
from service.core.work import EVALUATIONS, REST_STEPS, pixels
from service.engine.base import Engine, EngineState, Listener
from service.engine.protocol import EngineReady
from tests.support.simulation.fake_engine import FAKE_MODEL
from tests.support.simulation.fake_models import DEFAULT, FakeModel, FakeModels

PIXEL_STEP: Final = 0.065 / 512**2
"""Seconds of a step per pixel: 65 ms for 512x512."""


@dataclass(kw_only=True)
class Row:
    """A job of one image in the batch."""

    job_id: str
    epoch: int
    request: GenerationSpec
    arrived: int
    """The engine's pixel steps when it came."""
    done: int = 0
    """Evaluations that it has had."""
    ending: bool = False
    """Whether it takes one more at most."""

    @property
    def passes(self) -> list[tuple[GenerationSpec, int]]:
        """What is drawn, and with how many evaluations: twice where there is a second pass."""
        each = (replace(self.request, hires=None), self.request.second)
        return [(one, one.first_steps * EVALUATIONS[one.sampler]) for one in each if one]

    @property
    def left(self) -> list[GenerationSpec]:
        """What is drawn in each evaluation that is left."""
        found = [one for one, count in self.passes for _ in range(count)][self.done :]
        return found[:1] if self.ending else found

    def urgency(self, clock: int) -> float:
        """Return the response ratio, as ``service.diffusion.loop.order`` does."""
        rest = sum(pixels(each) for each in self.left)
        return (clock - self.arrived + rest) / rest

    def step(self) -> None:
        """Do an evaluation."""
        self.done += 1
        if self.ending:
            self.done = sum(count for _, count in self.passes)


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
        self.held = FakeModels(
            {DEFAULT: FakeModel(info=FAKE_MODEL)} | dict(models or {}),
            room=room,
            host_room=host_room,
            tell=lambda said: self._tell(said),  # noqa: PLW0108 - start sets it
            busy=lambda: {row.request.model for row in self._rows.values()},
        )

    async def start(self, listener: Listener) -> None:
        """Be ready at once."""
        self._tell, self.state, self.model = listener, EngineState.READY, FAKE_MODEL
        self.held.begin()
        listener(EngineReady(model=FAKE_MODEL))

    async def stop(self) -> None:
        """Forget all jobs."""
        self.state = EngineState.STOPPED
        self._rows.clear()

    def cancel(self, job_id: str) -> None:
        """Take a job out before the next step."""
        self._rows.pop(job_id, None)
        self.held.pump()

    def interrupt(self, job_id: str) -> None:
        """Let a job have one more step at most."""
        if row := self._rows.get(job_id):
            row.ending = True

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
        if request.model not in self.held.device:
            failed = JobFailed(job_id=job_id, epoch=epoch, code=MODEL_NOT_LOADED, detail="")
            asyncio.get_running_loop().call_soon(self._tell, failed)
            return
        self.held.touch(request.model)
        self._rows[job_id] = Row(
            job_id=job_id,
            epoch=epoch,
            request=request,
            arrived=self._clock,
        )
        if not self._busy:
            self._busy = True
            asyncio.get_running_loop().call_soon(self._begin)

    def _begin(self) -> None:
        """Begin to decode an image or to move a batch; go on when it is done."""
        finished = [row for row in self._rows.values() if not row.left]
        moving = [row for row in self._rows.values() if row.left]
        self._busy = bool(self._rows)
        if not self._busy:
            return
        self._decoded = bool(finished) and not (self._decoded and moving)
        if self._decoded:
            row = finished[0]
            seconds = REST_STEPS * pixels(row.request) * self._pixel_step
            asyncio.get_running_loop().call_later(seconds, self._end_decode, row, seconds)
            return
        groups: dict[tuple[str, int], list[Row]] = defaultdict(list)
        for row in sorted(moving, key=lambda row: -row.urgency(self._clock)):
            # The most urgent row's model and size come first.
            groups[row.request.model, row.left[0].width].append(row)
        batch = next(iter(groups.values()))[: self._batch]
        seconds = sum(pixels(row.left[0]) for row in batch) * self._pixel_step
        asyncio.get_running_loop().call_later(seconds, self._end_step, batch, seconds)

    def _end_decode(self, row: Row, seconds: float) -> None:
        if self._rows.pop(row.job_id, None):
            times = StageTimes(vae_decode=seconds)
            self._tell(JobFinished(job_id=row.job_id, epoch=row.epoch, images=(), times=times))
            self.held.pump()
        self._begin()

    def _end_step(self, batch: list[Row], seconds: float) -> None:
        sizes = {row.job_id: pixels(row.left[0]) for row in batch}
        self._clock += sum(sizes.values())
        for row in batch:
            row.step()
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
        self._begin()
