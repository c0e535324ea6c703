"""What an engine says, before anybody believes it.

An engine whose memory is damaged may say anything. What is no event, or none that can be true,
is told from the rest here; its speaker is then killed and started again.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Final, get_args

from service.config import Config
from service.diffusion.generation import (
    Calibrated,
    Capacity,
    GenerationRequest,
    JobCancelled,
    JobFailed,
    JobFinished,
    MemoryUse,
    ModelInfo,
    OutOfMemoryHit,
    Picture,
    Previewed,
    StageTimes,
    Stepped,
    Usual,
)
from service.engine import wire
from service.engine.messages import Began, EngineFailed, EngineReady, Said
from service.engine.wire import LONGEST_WORD, GarbageError

VALUES: Final = {
    (kind.__module__, kind.__qualname__): kind
    for kind in (*get_args(Said), MemoryUse, ModelInfo, Picture, StageTimes)
}
"""All that a message may be made of, beside plain numbers, texts and containers."""

CHANNELS: Final = 3
BESIDE_PICTURES: Final = 2**20
"""Bytes: every other message is far smaller."""


def longest_message(config: Config) -> int:
    """Return the bytes of the largest message that these settings allow."""
    return config.max_images * config.max_size**2 * CHANNELS + BESIDE_PICTURES


def parsed(data: bytes) -> Said:
    """Return the message in these bytes.

    Raises:
        GarbageError: there is none.

    """
    try:
        said = wire.values(data, VALUES)
    except (GarbageError, MemoryError):
        raise
    except Exception as error:  # Bytes that are no opcodes, or in no order.
        raise GarbageError(f"{len(data)} bytes are no message ({type(error).__name__})") from error
    if not isinstance(said, get_args(Said)):
        raise GarbageError(f"a {type(said).__name__} is no message")
    return said  # type: ignore[no-any-return]


class Inspector:
    """Holds what one engine process says against what it was told.

    ``work`` are the requests in the engine by the id of their job, ``leaving`` the ids of those
    that it was told to stop: the engine's own containers, as they are before the message.
    """

    def __init__(self, work: Mapping[str, GenerationRequest], leaving: Iterable[str]) -> None:
        self._work = work
        self._leaving = leaving
        self._ready = False
        self._progress: dict[str, int] = {}

    def check(self, said: Said) -> None:
        """Pass what can be true.

        Raises:
            GarbageError: with what cannot.

        """
        try:
            self._check(said)
        except (AttributeError, TypeError, ValueError, OverflowError) as error:
            # A field that is missing or of another kind, deep inside.
            raise GarbageError(f"a {type(said).__name__} is broken ({error})") from error

    def _check(self, said: Said) -> None:
        match said:
            case Began():
                _words(said.stage)
                _counts(said.pictures)
            case EngineReady() | EngineFailed():
                self._check_load(said)
            case _ if not self._ready:
                raise GarbageError(f"{type(said).__name__} before the model was loaded")
            case Stepped():
                self._check_step(said)
            case OutOfMemoryHit():
                _words(said.stage, said.rung)
                _counts(said.batch_size)
                _seconds(said.seconds)
            case Capacity() | Calibrated() | Usual():
                _check_measured(said)
            case Previewed():
                self._check_preview(said)
            case _:
                self._check_end(said)

    def _check_load(self, said: EngineReady | EngineFailed) -> None:
        if self._ready:
            raise GarbageError(f"{type(said).__name__} after the model was loaded")
        if isinstance(said, EngineReady):
            _check_model(said.model)
            _check_memory(said.memory)
            self._ready = True
        else:
            _texts(said.code, said.detail)
            if type(said.passing) is not bool:
                raise GarbageError("a failure is none")

    def _check_end(self, said: JobFinished | JobFailed | JobCancelled) -> None:
        request = self._request(said.job_id)
        _check_times(said.times)
        match said:
            case JobFinished():
                _check_pictures(request, said.pictures)
                _check_memory(said.memory)
                _counts(said.prompt_tokens_cut)
            case JobFailed():
                _texts(said.code, said.detail)
            case JobCancelled():
                _counts(said.steps_done)
                if said.job_id not in self._leaving:
                    raise GarbageError("a job was cancelled that nobody cancelled")
        self._progress.pop(said.job_id, None)

    def _request(self, job_id: str) -> GenerationRequest:
        request = self._work.get(job_id)
        if request is None:
            raise GarbageError("it spoke of a job that it does not have")
        return request

    def _check_preview(self, said: Previewed) -> None:
        request = self._request(said.job_id)
        _counts(said.step, said.width, said.height)
        if said.step > request.steps or not isinstance(said.pixels, bytes):
            raise GarbageError("a preview is none")
        if not said.pixels or len(said.pixels) != said.width * said.height * CHANNELS:
            raise GarbageError(f"{len(said.pixels)} bytes are no preview")

    def _check_step(self, said: Stepped) -> None:
        _counts(said.batch_size, said.pixels, *said.progress.values())
        _seconds(said.seconds, *said.shares.values())
        _check_memory(said.memory)
        if not said.progress or said.batch_size < 1 or said.pixels < 1:
            raise GarbageError("a step moved nothing")
        for job_id in (*said.progress, *said.shares):
            self._request(job_id)
        for job_id, done in said.progress.items():
            before, most = self._progress.get(job_id, 0), self._request(job_id).steps
            if not before <= done <= most:
                raise GarbageError(f"a job went from step {before} to {done} of {most}")
            self._progress[job_id] = done


def _check_pictures(request: GenerationRequest, pictures: tuple[Picture, ...]) -> None:
    if len(pictures) != request.num_images:
        raise GarbageError(f"{len(pictures)} pictures came where {request.num_images} were asked")
    for picture, seed in zip(pictures, request.seeds, strict=True):
        if not isinstance(picture, Picture) or not isinstance(picture.pixels, bytes):
            raise GarbageError("a picture is none")
        if (picture.width, picture.height, picture.seed) != (request.width, request.height, seed):
            raise GarbageError("a picture has another size or seed than was asked for")
        if len(picture.pixels) != request.width * request.height * CHANNELS:
            raise GarbageError(
                f"{len(picture.pixels)} bytes are no {request.width}x{request.height} picture"
            )


def _check_measured(said: Capacity | Calibrated | Usual) -> None:
    match said:
        case Capacity():
            _check_capacity(said)
        case Calibrated():
            _check_calibration(said)
        case Usual():
            _counts(said.pixels, said.pictures)
            _seconds(said.seconds)
            if said.pixels < 1 or said.pictures < 1:
                raise GarbageError("a step moved nothing")


def _check_capacity(said: Capacity) -> None:
    _counts(said.available, *said.relief.values())
    for stage, seen in said.known.items():
        _words(stage)
        _counts(*seen.keys(), *seen.values())
    for stage, need in said.needs.items():
        _words(stage)
        fixed, each = need
        if not (math.isfinite(fixed) and math.isfinite(each)):
            raise GarbageError("a need of memory is none")


def _check_calibration(said: Calibrated) -> None:
    _counts(said.batch, said.size, *said.seconds)
    _seconds(*said.seconds.values())
    if said.batch not in said.seconds or not all(said.seconds):
        raise GarbageError("a batch was calibrated that was not measured")


def _check_model(model: ModelInfo) -> None:
    if not isinstance(model, ModelInfo):
        raise GarbageError("a model is none")
    _texts(model.model_id, model.version, model.family, model.device, model.dtype)
    _texts(model.prediction_type, model.prediction_from, model.configuration, *model.ignored)
    for sampler, ranges in model.samplers.items():
        _words(sampler)
        _counts(*(bound for first, last in ranges for bound in (first, last)))
    _seconds(model.load_seconds)
    _counts(model.prompt_tokens)


def _check_times(times: StageTimes) -> None:
    _seconds(*(getattr(times, item.name) for item in fields(StageTimes)))


def _check_memory(memory: MemoryUse) -> None:
    _counts(*(getattr(memory, item.name) for item in fields(MemoryUse)))


def _texts(*values: object) -> None:
    for value in values:
        if not isinstance(value, str):
            raise GarbageError(f"a {type(value).__name__} is no text")


def _words(*values: str) -> None:
    _texts(*values)
    for value in values:
        if not 0 < len(value) <= LONGEST_WORD or not value.isidentifier():
            raise GarbageError("a name is none")


def _counts(*values: int) -> None:
    for value in values:
        if type(value) is not int or value < 0:
            raise GarbageError("a count is none")


def _seconds(*values: float) -> None:
    for value in values:
        if type(value) not in (int, float) or not math.isfinite(value) or value < 0:
            raise GarbageError("seconds are none")
