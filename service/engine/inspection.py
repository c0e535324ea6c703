"""What an engine says, before anybody believes it.

An engine whose memory is damaged may say anything. What is no event, or none that can be true,
is told from the rest here; its speaker is then killed and started again.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import fields
from typing import Final

import structlog

from service.config.table import Config
from service.core.capacity import Capacity, MemoryUse
from service.core.events import (
    MOST_STEPS,
    AdaptersChanged,
    AttemptEvent,
    BatchCalibrated,
    JobCancelled,
    JobFailed,
    JobFinished,
    ModelEvent,
    ModelLoaded,
    ModelsResident,
    OutOfMemoryHit,
    Previewed,
    StepBaseline,
    Stepped,
)
from service.core.inputs import EngineInputs
from service.core.limits import HIRES_TIMES, LARGEST, MOST_CLIP_LAYERS
from service.core.model import ModelInfo
from service.core.sampler import Sampler, Schedule
from service.core.spec import GenerationSpec
from service.engine.channel import GarbageError
from service.engine.protocol import EngineEvent, EngineFailed, EngineReady, Generate, StageStarted
from service.images.packing import is_packed
from service.telemetry.labels import FIRST_ENGINE

log = structlog.get_logger(__name__)

CHANNELS: Final = 3
ENDS: Final = (JobFinished, JobFailed, JobCancelled)

OTHER_BYTES: Final = 2**20
"""Bytes: every other message is far smaller."""


def longest_message(config: Config) -> int:
    """Return the bytes of the largest message that these settings allow."""
    return (
        config.max_images * (HIRES_TIMES * (config.max_size or LARGEST)) ** 2 * CHANNELS
        + OTHER_BYTES
    )


def checked(inputs: EngineInputs, request: GenerationSpec) -> EngineInputs:
    """Return input images that have the size that is drawn.

    Raises:
        GarbageError: they have another.

    """
    pixels = request.width * request.height
    if len(inputs.image) != pixels * CHANNELS or len(inputs.mask) not in {0, pixels}:
        raise GarbageError(f"images of {len(inputs.image)} and {len(inputs.mask)} bytes are wrong")
    return inputs


class Inspector:
    """Holds what one engine process says against what it was told.

    ``work`` are the commands that the engine works on by the id of their job, ``leaving`` the ids
    of those that it was told to stop, ``interrupted`` of those to end early: the engine's own
    containers, as they are before the message. A ``hosted`` engine may load while its host has ends
    of the one before it.
    """

    def __init__(
        self,
        work: Mapping[str, Generate],
        leaving: Collection[str],
        interrupted: Collection[str],
        engine: str = FIRST_ENGINE,
        *,
        hosted: bool = False,
    ) -> None:
        self._log = log.bind(engine=engine)
        self._hosted = hosted
        self._work = work
        self._leaving, self._interrupted = leaving, interrupted
        self._ready = False
        self._progress: dict[str, int] = {}

    def check(self, said: EngineEvent) -> bool:
        """Pass what can be true; return False for what an earlier attempt at a job has left.

        Raises:
            GarbageError: with what cannot.

        """
        match said:
            case StageStarted():
                _counts(said.images)
            case EngineReady() | EngineFailed():
                self._check_load(said)
            case _ if not self._ready and not (self._hosted and isinstance(said, ENDS)):
                raise GarbageError(f"{type(said).__name__} before the model was loaded")
            case Stepped():
                self._check_step(said)
            case OutOfMemoryHit():
                _counts(said.batch_size)
                _seconds(said.seconds)
            case Capacity() | BatchCalibrated() | StepBaseline() | AdaptersChanged():
                _check_measured(said)
            case ModelEvent():
                _check_models(said)
            case AttemptEvent() if self._is_late(said.job_id, said.epoch):
                return False
            case Previewed():
                self._check_preview(said)
            case _:
                self._check_end(said)
        return True

    def _check_load(self, said: EngineReady | EngineFailed) -> None:
        if self._ready:
            raise GarbageError(f"{type(said).__name__} after the model was loaded")
        if isinstance(said, EngineReady):
            _check_model(said.model)
            _check_memory(said.memory)
            self._ready = True

    def _check_end(self, said: JobFinished | JobFailed | JobCancelled) -> None:
        request = self._work[said.job_id].request
        _seconds(*said.times.by_stage.values())
        match said:
            case JobFinished():
                _check_images(request, said)
                _check_memory(said.memory)
                _counts(said.prompt_tokens)
                _counts(said.prompt_tokens_cut)
                if not said.adapter_hashes.keys() <= {each.name for each in request.adapters}:
                    raise GarbageError("an image was made with adapters that nobody asked for")
                self._check_interrupt(said.job_id, said.interrupted_after)
            case JobCancelled():
                _counts(said.steps_done)
                if said.job_id not in self._leaving:
                    raise GarbageError("a job was cancelled that nobody cancelled")
        self._progress.pop(said.job_id, None)

    def _check_interrupt(self, job_id: str, after: int | None) -> None:
        if after is None:
            return
        if job_id not in self._interrupted:
            raise GarbageError("a job ended early that nobody interrupted")
        if not 0 <= after < self._work[job_id].request.total_steps:
            raise GarbageError("a job was interrupted after as many steps as were asked for")

    def _is_late(self, job_id: str, epoch: int) -> bool:
        known = self._work.get(job_id)
        if known is None or epoch > known.epoch:
            raise GarbageError("it spoke of a job that it does not have")
        late = epoch < known.epoch
        if late:
            self._log.warning("late_event_dropped", job_id=job_id, epoch=epoch)
        return late

    def _check_preview(self, said: Previewed) -> None:
        request = self._work[said.job_id].request
        _counts(said.step, said.width, said.height)
        if said.step > request.total_steps:
            raise GarbageError("a preview is of a step that was not asked for")
        if not said.pixels or len(said.pixels) != said.width * said.height * CHANNELS:
            raise GarbageError(f"{len(said.pixels)} bytes are no preview")

    def _check_step(self, said: Stepped) -> None:
        _counts(said.batch_size, said.pixels, *said.progress.values())
        _seconds(said.seconds, *said.shares.values())
        _check_memory(said.memory)
        if not said.progress or said.batch_size < 1 or said.pixels < 1:
            raise GarbageError("a step moved nothing")
        if not 1 <= said.steps <= MOST_STEPS:
            raise GarbageError("a report is of no step, or of more than there can be")
        if not said.progress.keys() == said.shares.keys() == said.epochs.keys():
            raise GarbageError("a step moved jobs without an attempt")
        for job_id, done in said.progress.items():
            if self._is_late(job_id, said.epochs[job_id]):
                continue
            before, most = self._progress.get(job_id, 0), self._work[job_id].request.total_steps
            if not before <= done <= most:
                raise GarbageError(f"a job went from step {before} to {done} of {most}")
            self._progress[job_id] = done


def _check_images(request: GenerationSpec, said: JobFinished) -> None:
    images = said.images
    if len(images) != request.num_images:
        raise GarbageError(f"{len(images)} images came where {request.num_images} were asked")
    sizes = {request.drawn_size}
    if said.interrupted_after is not None:
        sizes.add((request.width, request.height))  # It may have ended in its first pass.
    for image, seed in zip(images, request.seeds, strict=True):
        if (image.width, image.height) not in sizes or image.seed != seed:
            raise GarbageError("an image has another size or seed than was asked for")
        rows = image.width * image.height * CHANNELS
        if not (is_packed(image) if image.packed else len(image.pixels) == rows):
            raise GarbageError(
                f"{len(image.pixels)} bytes are no {image.width}x{image.height} image"
            )


def _check_measured(said: Capacity | BatchCalibrated | StepBaseline | AdaptersChanged) -> None:
    match said:
        case AdaptersChanged():
            _counts(said.failures, said.evictions, *said.held.values())
            _seconds(*said.load_seconds)
        case Capacity():
            _check_capacity(said)
        case BatchCalibrated():
            _check_calibration(said)
        case StepBaseline():
            _counts(said.pixels, said.images)
            _seconds(said.seconds)
            if said.pixels < 1 or said.images < 1:
                raise GarbageError("a step moved nothing")


def _check_models(said: ModelEvent) -> None:
    """Check what is said of models; of one that left there are only texts."""
    match said:
        case ModelLoaded():
            _check_model(said.model)
            _check_memory(said.memory)
            _seconds(said.seconds)
        case ModelsResident():
            _counts(*said.device.values(), *said.host.values())


def _check_capacity(said: Capacity) -> None:
    _counts(said.available, *said.relief.values())
    for seen in said.known.values():
        _counts(*seen.keys(), *seen.values())
    for fixed, each in said.needs.values():
        if not (math.isfinite(fixed) and math.isfinite(each)):
            raise GarbageError("a need of memory is no number")


def _check_calibration(said: BatchCalibrated) -> None:
    _counts(said.batch, said.size, *said.seconds)
    _seconds(*said.seconds.values())
    if said.batch not in said.seconds or not all(said.seconds):
        raise GarbageError("a batch was calibrated that was not measured")


def _check_model(model: ModelInfo) -> None:
    sizes = model.sizes
    if not 0 < sizes.smallest <= sizes.usual <= sizes.largest <= LARGEST:
        raise GarbageError("a model draws sizes that no model has")
    if not 1 <= model.max_clip_skip <= MOST_CLIP_LAYERS:
        raise GarbageError("a model reads layers that no text encoder has")
    recipe = model.recipe
    for number in (recipe.guidance_scale, recipe.guidance_rescale, recipe.eta):
        if number is not None and not (math.isfinite(number) and number >= 0):
            raise GarbageError("a recipe wants what is no number")
    if model.recipe.sampler not in (None, *Sampler):
        raise GarbageError("a recipe wants a sampler that there is none of")
    if model.recipe.schedule not in (None, *Schedule):
        raise GarbageError("a recipe wants a schedule that there is none of")
    _counts(recipe.steps or 0, recipe.size or 0)
    if not {name for name, _ in recipe.cut} <= recipe.values.keys():
        raise GarbageError("a recipe was cut where it asks for nothing")
    for ranges in model.samplers.values():
        _counts(*(bound for first, last in ranges for bound in (first, last)))
    _seconds(model.load_seconds)
    _counts(model.prompt_tokens)


def _check_memory(memory: MemoryUse) -> None:
    _counts(*(getattr(memory, item.name) for item in fields(MemoryUse)))


def _counts(*values: int) -> None:
    for value in values:
        if value < 0:
            raise GarbageError("a count is below 0")


def _seconds(*values: float) -> None:
    for value in values:
        if not math.isfinite(value) or value < 0:
            raise GarbageError("seconds are below 0 or no number")
