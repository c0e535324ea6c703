"""Rows made when their first step comes: with a scheduler, the prompt, and what the VAE finds."""

from collections.abc import Callable, Sequence
from typing import Any

from service.core.stage import Stage
from service.diffusion.adapters.store import AdapterStore
from service.diffusion.conditioning.encoding import Conditioning, cached
from service.diffusion.families.base import Encoded
from service.diffusion.load import Model
from service.diffusion.loop.images import ImageCoder
from service.diffusion.loop.order import Sample
from service.diffusion.loop.row import Row
from service.diffusion.loop.tasks import Tasks
from service.diffusion.memory.usage import synchronise


class RowMaker:
    """Makes the rows of samples; what fails ends its job."""

    def __init__(
        self,
        model: Model,
        tasks: Tasks,
        adapters: AdapterStore,
        coder: ImageCoder,
        fault: Callable[[Stage, int], None],
    ) -> None:
        self._model, self._tasks, self._adapters = model, tasks, adapters
        self._coder, self._fault = coder, fault
        self._encode = cached(model.family.encode)

    def of(self, batch: Sequence[Sample]) -> list[tuple[Sample, Row]]:
        """Return the samples that move now, with their rows: one image is encoded at most.

        Other samples that wait for theirs come with the next steps, so that those that are on
        their way do not wait for all of them.
        """
        ready: list[tuple[Sample, Row]] = []
        coded = False
        for sample in batch:
            codes = sample.row is None and sample.start.encodes and self._found(sample) is None
            if codes and coded:
                continue
            coded = coded or codes
            row = self._row(sample)
            if row is not None:
                ready.append((sample, row))
        return ready

    def _row(self, sample: Sample) -> Row | None:
        """Return the sample's row, made when its first step comes; None if it failed."""
        task = sample.task
        if sample.row is None and self._tasks.alive(task):
            request = task.request
            # First of all: a pair that cannot be drawn costs no work.
            scheduler = self._tasks.attempt(task, Stage.DENOISE, lambda: self._scheduler(sample))
            conditioning = self._conditioning(sample) if scheduler is not None else None
            encoded = self._images(sample) if conditioning is not None else None
            if conditioning is not None and encoded is not None:
                sample.row = self._tasks.attempt(
                    task,
                    Stage.DENOISE,
                    lambda: Row(
                        self._model,
                        scheduler,
                        sample.start,
                        request.seeds[sample.index],
                        conditioning,
                        encoded=encoded,
                        subseed=request.subseeds[sample.index],
                    ),
                )
        return sample.row if self._tasks.alive(task) else None

    def _scheduler(self, sample: Sample) -> Any:
        """Return the scheduler of the pass that begins, if a later one can have its own, too."""
        passes = filter(None, (sample.start.request, sample.second))
        found = [
            self._model.samplers.new(each.sampler, each.steps, each.schedule, eta=each.eta)
            for each in passes
        ]
        return found[0]

    def _conditioning(self, sample: Sample) -> Conditioning | None:
        """Return what guides a pass, which all samples of a task share; None if it failed."""
        task, second = sample.task, sample.in_second
        if second not in task.conditioning:
            with self._tasks.timed(task, Stage.TEXT_ENCODE):
                found = self._tasks.attempt(task, Stage.TEXT_ENCODE, lambda: self._encoded(sample))
                synchronise(self._model.device)
            if found is None:
                return None
            task.conditioning[second] = found
        return task.conditioning[second]

    def _images(self, sample: Sample) -> Sequence[Encoded] | None:
        """Return what the VAE finds in the images of a start; None if it failed."""
        if not sample.start.encodes:
            return ()
        found = self._found(sample)
        if found is None:
            found = self._coder.encode(sample.task, sample.start.images)
            if sample.start is sample.task.start:
                sample.task.encoded = found
        return found

    def _found(self, sample: Sample) -> Sequence[Encoded] | None:
        """Return what the VAE has found already, which all samples of a task share."""
        return sample.task.encoded if sample.start is sample.task.start else None

    def _encoded(self, sample: Sample) -> Conditioning:
        self._fault(Stage.TEXT_ENCODE, 1)
        lease = sample.task.adapters
        with self._adapters.on_texts(lease):
            return self._model.family.condition(
                sample.start.request,
                lambda text, reading: self._encode(text, reading, lease.text_key),
                lease.words,
                after=sample.task.start.steps if sample.in_second else 0,
            )
