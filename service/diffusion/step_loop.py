"""The step loop: requests join and leave a running batch between two denoising steps."""

import time
import traceback
from collections.abc import Callable, Sequence
from typing import TypeVar

import structlog
import torch

from service.diffusion.batch import predict
from service.diffusion.decode import checked, decode, has_safety_checker
from service.diffusion.encoding import Conditioning, Encoder
from service.diffusion.generation import (
    GenerationRequest,
    JobCancelled,
    JobFailed,
    JobFinished,
    Outcome,
    OutOfMemoryHit,
    Picture,
    Stepped,
)
from service.diffusion.load import Model
from service.diffusion.memory import (
    free_cache,
    is_device_lost,
    is_out_of_memory,
    memory_use,
    synchronise,
)
from service.diffusion.order import BatchLimits, Place, Task, next_batch
from service.diffusion.row import Row
from service.diffusion.samplers import Samplers
from service.errors import GenerationFailed, OutOfMemory, ServiceError
from service.heap import Housekeeping

log = structlog.get_logger(__name__)

T = TypeVar("T")
Fault = Callable[[str, int], None]
"""Called with a stage's name and its number of pictures before the stage; tests raise in it."""


class StepLoop:
    """The pictures in the making of one model; each ``step`` moves one batch by one step.

    Pictures of one size form a group. A step moves up to ``batch_limit`` pictures of one
    group in a single UNet call, each at its own timestep, with its own sampler, seed and
    guidance scale; ``order.next_batch`` says which. A picture whose last step is done is
    decoded by the following call, and two decodes never follow each other while other
    pictures could move.

    Stages are ``text_encode``, ``denoise``, ``vae_decode`` and ``safety``. Not safe for use
    by two threads at once.
    """

    def __init__(self, model: Model, *, batch_limit: int, fault: Fault | None = None) -> None:
        self._model = model
        self._limits = BatchLimits(batch_limit)
        self._fault: Fault = fault or (lambda _stage, _pictures: None)
        self._samplers = Samplers(model.pipeline.scheduler.config)
        self._encoder = Encoder(model)
        self._tasks: dict[str, Task] = {}
        self._clock = 0
        """Pixel steps done so far, for anyone: what waiting is measured with."""
        self._decoded_last = False
        self._retried = 0.0
        """Seconds of work that ran out of memory, of all time: no stage counts them."""
        self._outcomes: list[Outcome] = []
        self._housekeeping = Housekeeping()

    @property
    def busy(self) -> bool:
        """Whether ``step`` has anything to do or to report."""
        return bool(self._tasks or self._outcomes)

    def add(self, job_id: str, request: GenerationRequest) -> None:
        """Take a job in; its pictures join a batch before its next step if there is room."""
        self._tasks[job_id] = Task(job_id=job_id, request=request, arrived=self._clock)

    def cancel(self, job_id: str) -> None:
        """Take a job out before the next step, which reports it; unknown ids are ignored."""
        task = self._tasks.pop(job_id, None)
        if task is not None:
            self._outcomes.append(
                JobCancelled(job_id=job_id, steps_done=task.steps_done, times=task.times)
            )

    def step(self) -> list[Outcome]:
        """Decode one finished picture or move one batch by one step; report what happened.

        Raises:
            Exception: the GPU's context is lost (``memory.is_device_lost``), and with it
                everything on it: only a new process helps. Every other error ends as the
                ``JobFailed`` of the job it belongs to.

        """
        places = [place for task in self._tasks.values() for place in task.places]
        finished = [place for place in places if place.finished]
        moving = [place for place in places if not place.finished]
        with self._model.without_gradients():
            if finished and not (self._decoded_last and moving):
                self._decode(finished[0])
                self._decoded_last = True
            elif moving:
                self._denoise(next_batch(moving, self._limits, self._clock))
                self._decoded_last = False
        outcomes, self._outcomes = self._outcomes, []
        return outcomes

    def tidy(self) -> None:
        """Give back host memory that finished pictures left behind: now if idle, else seldom."""
        self._housekeeping.tidy(idle=not self.busy)

    def _denoise(self, batch: Sequence[Place]) -> None:
        ready = [(place, row) for place in batch if (row := self._row(place)) is not None]
        started = time.perf_counter() - self._retried
        moved = [
            (place, row)
            for place, row, prediction in self._predictions(ready)
            if self._attempt(place.task, None, lambda: row.advance(prediction)) is not None  # noqa: B023 - called at once
        ]
        moved = [(place, row) for place, row in moved if self._alive(place.task)]
        if not moved:
            return
        # One wait for the GPU per step: without it steps would queue up ahead of a cancel,
        # and the seconds would be those of the launch.
        synchronise(self._model.device)
        seconds = time.perf_counter() - self._retried - started
        pixels = sum(row.pixels for _, row in moved)
        self._clock += pixels
        self._limits.moved(moved[0][0].size)
        shares: dict[str, float] = {}
        for place, _ in moved:
            place.task.denoise += seconds / len(moved)
            job_id = place.task.job_id
            shares[job_id] = shares.get(job_id, 0.0) + seconds / len(moved)
        self._outcomes.append(
            Stepped(
                progress={place.task.job_id: place.task.steps_done for place, _ in moved},
                batch_size=len(moved),
                pixels=pixels,
                seconds=seconds,
                shares=shares,
                memory=memory_use(self._model.device),
            )
        )

    def _row(self, place: Place) -> Row | None:
        """Return the place's row, which is made when its first step comes; None if it failed."""
        task = place.task
        if place.row is None and self._alive(task):
            conditioning = self._conditioning(task)
            if conditioning is not None:
                place.row = self._attempt(
                    task,
                    None,
                    lambda: Row(
                        self._model,
                        self._samplers.new(task.request.sampler),
                        task.request,
                        task.request.seeds[place.index],
                        conditioning,
                    ),
                )
        return place.row if self._alive(task) else None

    def _conditioning(self, task: Task) -> Conditioning | None:
        if task.conditioning is None:
            started = time.perf_counter() - self._retried
            task.conditioning = self._attempt(
                task, "text_encode", lambda: self._encoder.conditioning(task.request)
            )
            synchronise(self._model.device)
            task.text_encode += time.perf_counter() - self._retried - started
        return task.conditioning

    def _predictions(
        self, batch: Sequence[tuple[Place, Row]]
    ) -> list[tuple[Place, Row, torch.Tensor]]:
        """Ask the UNet about all rows at once; if that fails, about one at a time.

        So an error ends the job that causes it and no other, and memory that does not
        suffice for all may suffice for each.
        """
        if not batch:
            return []
        started = time.perf_counter()
        try:
            return self._predicted(batch)
        except Exception as error:  # noqa: BLE001 - sorted in _noted
            rung = "split_batch" if len(batch) > 1 else "free_cache"
            self._noted(error, "denoise", len(batch), rung, started)
            if is_out_of_memory(error):
                self._limits.lower(batch[0][0].size, len(batch))
        # Outside the handler: the error's frames keep the tensors alive that did not fit.
        free_cache(self._model.device)
        predictions = []
        for place, row in batch:
            if not self._alive(place.task):
                continue
            started = time.perf_counter()
            try:
                predictions += self._predicted([(place, row)])
            except Exception as error:  # noqa: BLE001 - sorted in _noted
                self._noted(error, "denoise", 1, "fail", started)
                self._fail(place.task, error)
        return predictions

    def _predicted(
        self, batch: Sequence[tuple[Place, Row]]
    ) -> list[tuple[Place, Row, torch.Tensor]]:
        self._fault("denoise", len(batch))
        predictions = predict(self._model, [row for _, row in batch])
        return [
            (place, row, prediction)
            for (place, row), prediction in zip(batch, predictions, strict=True)
        ]

    def _decode(self, place: Place) -> None:
        task, row = place.task, place.row
        if row is None:  # pragma: no cover - a finished place has one
            return
        started = time.perf_counter() - self._retried
        picture: Picture | None = self._attempt(
            task, "vae_decode", lambda: decode(self._model, row.latents, row.seed)
        )
        task.vae_decode += time.perf_counter() - self._retried - started
        if picture is not None and has_safety_checker(self._model):
            started = time.perf_counter() - self._retried
            made = picture
            picture = self._attempt(task, "safety", lambda: checked(self._model, made))
            task.safety += time.perf_counter() - self._retried - started
        if picture is None:
            return
        task.pictures[place.index] = picture
        task.places.remove(place)
        if task.places:
            return
        del self._tasks[task.job_id]
        self._outcomes.append(
            JobFinished(
                job_id=task.job_id,
                pictures=tuple(task.pictures[i] for i in sorted(task.pictures)),
                times=task.times,
                memory=memory_use(self._model.device),
                prompt_tokens_cut=task.conditioning.tokens_cut if task.conditioning else 0,
            )
        )

    def _attempt(self, task: Task, stage: str | None, work: Callable[[], T]) -> T | None:
        """Do one picture's work; if it fails its job fails, and None is returned.

        A named stage can be repeated: after an out-of-memory it is, once, with a free cache.
        """
        started = time.perf_counter()
        try:
            if stage is not None:
                self._fault(stage, 1)
            return work()
        except Exception as error:  # noqa: BLE001 - sorted in _noted
            rung = "fail" if stage is None else "free_cache"
            self._noted(error, stage or "denoise", 1, rung, started)
            if stage is None or not is_out_of_memory(error):
                self._fail(task, error)
                return None
        free_cache(self._model.device)
        started = time.perf_counter()
        try:
            self._fault(stage, 1)
            return work()
        except Exception as error:  # noqa: BLE001 - sorted in _noted
            self._noted(error, stage, 1, "fail", started)
            self._fail(task, error)
        return None

    def _noted(
        self, error: Exception, stage: str, pictures: int, rung: str, started: float
    ) -> None:
        """Report an out-of-memory; let an error that no retry can cure go up."""
        if is_out_of_memory(error):
            seconds = time.perf_counter() - started
            self._retried += seconds
            self._outcomes.append(
                OutOfMemoryHit(stage=stage, batch_size=pictures, rung=rung, seconds=seconds)
            )
        elif is_device_lost(error):
            raise error

    def _fail(self, task: Task, error: Exception) -> None:
        if self._tasks.get(task.job_id) is not task:
            return
        del self._tasks[task.job_id]
        reason = _reason(task.request, error)
        self._outcomes.append(
            JobFailed(job_id=task.job_id, code=reason.code, detail=reason.detail, times=task.times)
        )
        # Frames as plain text: renderers that show local variables would show the prompt.
        frames = "".join(traceback.format_tb(error.__traceback__))
        log.error(
            "generation_failed",
            job_id=task.job_id,
            code=reason.code,
            detail=reason.detail,
            frames=frames,
        )

    def _alive(self, task: Task) -> bool:
        return self._tasks.get(task.job_id) is task


def _reason(request: GenerationRequest, error: Exception) -> ServiceError:
    if isinstance(error, ServiceError):
        return error
    if is_out_of_memory(error):
        return OutOfMemory(
            f"One picture of {request.width}x{request.height} does not fit into memory, even "
            "alone. Ask for a smaller size."
        )
    cause = next(iter(str(error).strip().splitlines()), "")
    return GenerationFailed(f"{type(error).__name__}: {cause}")
