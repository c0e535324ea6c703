"""The step loop: requests join and leave a running batch between two denoising steps."""

import math
import time
from collections.abc import Callable, Sequence
from typing import Final

import torch

from service.core.events import JobCancelled, LoopEvent, OutOfMemoryHit, Stepped
from service.core.inputs import EngineInputs
from service.core.prompt.syntax import PromptSyntax
from service.core.prompt.words import texts
from service.core.spec import GenerationSpec
from service.core.stage import OomRung, Stage
from service.diffusion.adapters.store import AdapterStore, store_of
from service.diffusion.load import Model
from service.diffusion.loop.images import ImageCoder
from service.diffusion.loop.order import BatchLimits, Sample, Task, next_batch
from service.diffusion.loop.preview import Previews
from service.diffusion.loop.row import Row
from service.diffusion.loop.rows import RowMaker
from service.diffusion.loop.second_pass import SecondPasses
from service.diffusion.loop.starts.choice import start_of
from service.diffusion.loop.tasks import Tasks
from service.diffusion.memory.budget import MemoryBudget
from service.diffusion.memory.model import MemoryModel
from service.diffusion.memory.oom_recovery import OomRecovery
from service.diffusion.memory.usage import (
    Meter,
    free_cache,
    is_device_lost,
    is_out_of_memory,
    synchronise,
)

REST_SECONDS: Final = 0.05
"""Between two looks at commands while nothing but adapters is waited for."""

Fault = Callable[[Stage, int], None]
"""Called with a stage and its number of images before the stage; tests raise in it."""


def no_fault(stage: Stage, images: int) -> None:
    """Let a stage go on."""


def no_relief() -> None:
    """Free nothing: there are no others."""


class StepLoop:
    """The images in the making of one model; each ``step`` moves one batch by one step.

    Images with the same ``BatchKey`` form a group. A step moves up to ``batch_limit`` images
    of one group in a single call of the denoiser, each at its own timestep, with its own
    sampler, seed and guidance scale; ``order.next_batch`` says which. An image whose last step
    is done is decoded by the following call, or enlarged for its second pass; two of these never
    follow each other while other images could move.

    Not safe for use by two threads at once.
    """

    def __init__(
        self,
        model: Model,
        *,
        batch_limit: int,
        fault: Fault | None = None,
        adapters: AdapterStore | None = None,
    ) -> None:
        self.model = model
        self.adapters = adapters or store_of(model)
        self.fault: Fault = fault or no_fault
        self.relieve: Callable[[], object] = no_relief
        """Called when memory ran out, for others to free some."""
        self.meter = Meter(model.device)
        self.memory_model = MemoryModel(self.meter)
        self._recovery = OomRecovery(model, self._ran_out)
        self.budget = MemoryBudget(
            self.memory_model,
            self.meter,
            self._recovery.offloader,
            tiles=self._recovery.tiles[Stage.VAE_DECODE].able,
            blind=model.offloaded,
            side=model.info.sizes.usual,
        )
        self.limits = BatchLimits(batch_limit, fits=self.budget.images)
        self.previews = Previews(model)
        self._tasks = Tasks(self.adapters, self._recovery)
        self._outcomes = self._tasks.outcomes
        self._coder = ImageCoder(model, self._tasks, self._recovery, self.memory_model, self._begun)
        self._rows = RowMaker(model, self._tasks, self.adapters, self._coder, self._begun)
        self._second_passes = SecondPasses(model, self._tasks, self._coder)
        self._clock = 0
        """Pixel steps done so far, for anyone: what waiting is measured with."""
        self._decoded_last = False
        self._resting = False
        """Whether it waits for adapters, and has said so."""

    @property
    def busy(self) -> bool:
        """Whether ``step`` has anything to do or to report."""
        return bool(self._tasks or self._outcomes)

    def add(
        self,
        job_id: str,
        request: GenerationSpec,
        epoch: int = 1,
        inputs: EngineInputs | None = None,
    ) -> None:
        """Take a job in; its images join a batch before its next step if they fit.

        ``epoch`` is the number of the attempt, for those who make several; ``inputs`` are the
        pixels of the images that the request came with.
        """
        self._tasks[job_id] = Task(
            job_id=job_id,
            epoch=epoch,
            request=request,
            start=start_of(request, inputs, self.model),
            key=self.model.batch_key(request),
            arrived=self._clock,
            adapters=self.adapters.ask(
                request.adapters,
                texts(request),
                bare=request.prompt_syntax != PromptSyntax.PLAIN,
            ),
        )

    def cancel(self, job_id: str) -> None:
        """Take a job out before the next step, which reports it; unknown ids are ignored."""
        task = self._tasks.get(job_id)
        if task is not None:
            self._tasks.remove(task)
            self._outcomes.append(
                JobCancelled(
                    job_id=job_id, epoch=task.epoch, steps_done=task.steps_done, times=task.times
                )
            )

    def interrupt(self, job_id: str) -> None:
        """End a job early, each image after its first step or the next; unknown ids are ignored."""
        if job_id in self._tasks:
            self._tasks[job_id].interrupted = True

    def step(self) -> list[LoopEvent]:
        """Decode one finished image or move one batch by one step; report what happened.

        Raises:
            Exception: the GPU's context is lost (``memory.is_device_lost``), and with it
                everything on it: only a new process helps. Every other error ends as the
                ``JobFailed`` of the job it belongs to.

        """
        samples = [sample for task in self._equipped() for sample in task.samples]
        finished = [sample for sample in samples if sample.finished]
        moving = [sample for sample in samples if not sample.finished]
        with self.model.without_gradients():
            if finished and not (self._decoded_last and moving):
                self._end_pass(finished[0])
                self._decoded_last = True
            elif moving:
                self._denoise(next_batch(moving, self.limits, self._clock))
                self._decoded_last = False
            elif self.adapters.waiting:
                self._rest()
        self._resting = self._resting and not samples
        outcomes = list(self._outcomes)
        self._outcomes.clear()
        return outcomes

    def _equipped(self) -> list[Task]:
        """Return the tasks that have their adapters; end those whose adapters cannot be used."""
        if self.adapters.waiting:
            self.adapters.pump()
        for task in list(self._tasks.values()):
            if task.adapters.error is not None:
                self._tasks.fail(task, task.adapters.error)
        return [task for task in self._tasks.values() if task.adapters.ready]

    def _rest(self) -> None:
        """Wait a little for adapters, with nothing else to do."""
        if not self._resting:
            self._resting = True
            self.fault(Stage.LOAD, 0)  # A load may take longer than a step may.
        self.adapters.rest(REST_SECONDS)

    def _denoise(self, batch: Sequence[Sample]) -> None:
        ready = self._rows.of(batch)
        started = time.perf_counter() - self._recovery.lost
        moved = [
            (sample, row)
            for sample, row, prediction in self._predictions(ready)
            if self._advanced(sample, row, prediction)
        ]
        moved = [(sample, row) for sample, row in moved if self._tasks.alive(sample.task)]
        if not moved:
            return
        # One wait for the GPU per step: without it steps would queue up ahead of a cancel,
        # and the seconds would be those of the launch.
        synchronise(self.model.device)
        seconds = time.perf_counter() - self._recovery.lost - started
        places = sum(sample.places for sample, _ in moved)
        batch_size = math.ceil(places)
        # A half image in it counts as a whole one, in pixels, too: their size stays what it is.
        counted = sum(row.pixels * sample.places for sample, row in moved)
        pixels = round(counted * batch_size / places)
        self._clock += pixels
        self.limits.moved(moved[0][0].key)
        shares: dict[str, float] = {}
        for sample, _ in moved:
            share = seconds * sample.places / places
            sample.task.seconds[Stage.DENOISE] += share
            job_id = sample.task.job_id
            shares[job_id] = shares.get(job_id, 0.0) + share
        self._outcomes.append(
            Stepped(
                progress={sample.task.job_id: sample.task.steps_done for sample, _ in moved},
                batch_size=batch_size,
                pixels=pixels,
                seconds=seconds,
                shares=shares,
                epochs={sample.task.job_id: sample.task.epoch for sample, _ in moved},
                memory=self.meter.use(),
            )
        )
        self._outcomes += self.previews.after(moved)

    def _advanced(self, sample: Sample, row: Row, prediction: torch.Tensor) -> int | None:
        return self._tasks.attempt(
            sample.task, Stage.DENOISE, lambda: row.advance(prediction), once=True
        )

    def _begun(self, stage: Stage, images: int) -> None:
        self.fault(stage, images)

    def _ran_out(self, hit: OutOfMemoryHit) -> None:
        """Report that memory ran out; adapters that no job uses leave it first."""
        self._outcomes.append(hit)
        if hit.rung == OomRung.FREE_CACHE:
            self.adapters.release_memory()
            self.relieve()

    def _predictions(
        self, batch: Sequence[tuple[Sample, Row]]
    ) -> list[tuple[Sample, Row, torch.Tensor]]:
        """Predict for all rows in one call; if that fails, for fewer at a time.

        So an error ends the job that causes it and no other, and memory that does not
        suffice for all may suffice for half of them, or for each.
        """
        batch = [(sample, row) for sample, row in batch if self._tasks.alive(sample.task)]
        if not batch:
            return []
        try:
            return self._recovery.run(
                Stage.DENOISE, lambda: self._predicted(batch), images=len(batch)
            )
        except Exception as error:
            if is_device_lost(error):
                raise
            if len(batch) == 1:
                self._tasks.fail(batch[0][0].task, error)
                return []
            some = 1
            if is_out_of_memory(error):
                places = sum(each.places for each, _ in batch)
                self.limits.lower(batch[0][0].key, math.ceil(places))
                some = (len(batch) + 1) // 2
        # Outside the handler: the error's frames keep the tensors alive that did not fit.
        free_cache(self.model.device)
        parts = [batch[first : first + some] for first in range(0, len(batch), some)]
        return [prediction for part in parts for prediction in self._predictions(part)]

    def _predicted(
        self, batch: Sequence[tuple[Sample, Row]]
    ) -> list[tuple[Sample, Row, torch.Tensor]]:
        self.fault(Stage.DENOISE, len(batch))
        pixels = sum(row.pixels * len(row.conditioning.texts) for _, row in batch)
        uses = [
            sample.task.adapters.denoiser for sample, row in batch for _ in row.conditioning.texts
        ]
        with self.memory_model.measuring(Stage.DENOISE, pixels), self.adapters.on_rows(uses):
            predictions = self.model.family.denoise([row for _, row in batch])
        return [(*pair, each) for pair, each in zip(batch, predictions, strict=True)]

    def _end_pass(self, sample: Sample) -> None:
        """Begin the second pass of an image whose first one is done, or decode the image."""
        task, row, second = sample.task, sample.row, sample.second
        if row is None:  # pragma: no cover - a finished sample has one
            return
        if second is not None and not task.interrupted:
            start = self._second_passes.start(task, row, second)
            if start is not None:
                sample.go_on(start, self.model.batch_key(second))
            return
        # What the latents are on the way to: of an unfinished image they are mostly noise.
        latents = row.estimate() if row.evaluations_left else row.latents
        image = self._coder.decode(task, latents, row.seed)
        if image is not None:
            self.previews.learn(latents, image)
            image = self._coder.checked(task, image)
        if image is None:
            return
        self._recovery.offloader.image_done()
        task.images[sample.index] = image
        task.samples.remove(sample)
        task.steps_drawn += sample.steps_done
        if task.samples:
            return
        done = task.finished(self.meter.use())
        self._tasks.remove(task)
        self._outcomes.append(done)
