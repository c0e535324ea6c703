"""The step loop: requests join and leave a running batch between two denoising steps."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import structlog
import torch

from service.diffusion.batch import predict
from service.diffusion.decode import decode
from service.diffusion.encoding import Conditioning, Encoder
from service.diffusion.generation import (
    GenerationRequest,
    JobCancelled,
    JobFailed,
    JobFinished,
    OutOfMemoryHit,
    Outcome,
    Picture,
    StageTimes,
    Stepped,
)
from service.diffusion.load import Model
from service.diffusion.memory import free_cache, is_out_of_memory, memory_use
from service.diffusion.row import GroupKey, Row
from service.diffusion.samplers import Samplers
from service.errors import GenerationFailed, OutOfMemory, ServiceError

log = structlog.get_logger(__name__)

Fault = Callable[[str, int], None]
"""Called before each stage with its name and its number of rows; a test raises in it."""


@dataclass(kw_only=True, eq=False)
class _Place:
    """One picture of a job: waiting (no row yet), moving, or waiting to be decoded."""

    task: "_Task"
    index: int
    row: Row | None = None

    @property
    def left(self) -> int:
        """Pixel steps still to do."""
        request = self.task.request
        evaluations = self.row.evaluations_left if self.row else request.steps
        return request.width * request.height * evaluations


@dataclass(kw_only=True, eq=False)
class _Task:
    """One job inside the loop."""

    job_id: str
    request: GenerationRequest
    arrived: int
    """The loop's work clock when it came."""
    places: list[_Place] = field(default_factory=list)
    pictures: dict[int, Picture] = field(default_factory=dict)
    conditioning: Conditioning | None = None
    tokens_cut: int = 0
    text_encode: float = 0.0
    denoise: float = 0.0
    decode: float = 0.0

    @property
    def steps_done(self) -> int:
        """Steps done, averaged down over the pictures."""
        moving = {place.index: place.row.steps_done for place in self.places if place.row}
        finished = len(self.pictures) * self.request.steps
        return (sum(moving.values()) + finished) // self.request.num_images


class StepLoop:
    """The pictures in the making of one model; each ``step`` moves one batch by one step.

    Rows whose latents have one shape form a group, and a step moves the first
    ``batch_limit`` rows of one group in a single UNet call: each at its own timestep,
    with its own sampler, seed and guidance scale. Which group moves is decided anew
    before every step (``_next_batch``). A picture whose last step is done is decoded by
    the following call, and two decodes never follow each other while others could move.

    Not safe for use from two threads at once.
    """

    def __init__(self, model: Model, *, batch_limit: int, fault: Fault | None = None) -> None:
        self._model = model
        self._batch_limit = batch_limit
        self._fault = fault or (lambda _stage, _rows: None)
        self._samplers = Samplers(model.pipeline.scheduler.config)
        self._encoder = Encoder(model)
        self._tasks: dict[str, _Task] = {}
        self._limits: dict[tuple[int, int], int] = {}
        """Batch limits lowered by an out-of-memory, by width and height."""
        self._work_done = 0
        """Pixel steps since the start: the clock that waiting is measured with."""
        self._decoded_last = False
        self._outcomes: list[Outcome] = []

    @property
    def busy(self) -> bool:
        """Whether ``step`` has anything to do or to report."""
        return bool(self._tasks or self._outcomes)

    def add(self, job_id: str, request: GenerationRequest) -> None:
        """Take a job in; its pictures join the batch before the next step if there is room."""
        task = _Task(job_id=job_id, request=request, arrived=self._work_done)
        task.places = [_Place(task=task, index=i) for i in range(request.num_images)]
        self._tasks[job_id] = task

    def cancel(self, job_id: str) -> None:
        """Take a job out before the next step; unknown ids are ignored."""
        task = self._tasks.pop(job_id, None)
        if task is not None:
            self._outcomes.append(JobCancelled(job_id=job_id, steps_done=task.steps_done))

    @torch.inference_mode()
    def step(self) -> list[Outcome]:
        """Decode one finished picture or move one batch by one step; report what happened."""
        places = [place for task in self._tasks.values() for place in task.places]
        finished = [p for p in places if p.row is not None and p.row.evaluations_left == 0]
        moving = [p for p in places if p.row is None or p.row.evaluations_left > 0]
        if finished and not (self._decoded_last and moving):
            self._decoded_last = True
            self._decode(finished[0])
        elif moving:
            self._decoded_last = False
            self._denoise(self._next_batch(moving))
        outcomes, self._outcomes = self._outcomes, []
        return outcomes

    def _next_batch(self, places: Sequence[_Place]) -> list[_Place]:
        """Choose the group with the highest response ratio and its first rows in arrival order.

        The ratio (waited + remaining) / remaining is Brinch Hansen's rule (Highest Response
        Ratio Next, 1971), asked again at every step: a short job overtakes a long one, a
        job that runs tends to run to its end, and a waiting job's ratio grows until it is
        its turn, so none starves. Both are counted in pixel steps, not in seconds, so the
        order depends on nothing but the requests.
        """
        groups: dict[tuple[int, int], list[_Place]] = {}
        for place in places:
            request = place.task.request
            groups.setdefault((request.width, request.height), []).append(place)
        size = max(groups, key=lambda size: max(self._response_ratio(p) for p in groups[size]))
        return groups[size][: self._limits.get(size, self._batch_limit)]

    def _response_ratio(self, place: _Place) -> tuple[float, int]:
        waited = self._work_done - place.task.arrived
        return (waited + place.left) / place.left, -place.left

    def _denoise(self, places: list[_Place]) -> None:
        places = [place for place in places if self._joined(place)]
        rows = [(place, place.row) for place in places if place.row is not None]
        if not rows:
            return
        started = time.perf_counter()
        moved = [
            place
            for place, prediction in self._predictions(rows)
            if self._advance(place, prediction)
        ]
        self._synchronise()
        seconds = time.perf_counter() - started
        pixels = sum(place.row.pixels for place in moved if place.row)
        self._work_done += pixels
        for place in moved:
            place.task.denoise += seconds / len(moved)
        if moved:
            self._outcomes.append(
                Stepped(
                    progress={p.task.job_id: p.task.steps_done for p in moved},
                    batch_size=len(moved),
                    pixels=pixels,
                    seconds=seconds,
                    memory=memory_use(self._model.device),
                )
            )

    def _predictions(self, rows):
        predictions = predict(self._model, [row for _, row in rows])
        return [(place, p) for (place, _), p in zip(rows, predictions, strict=True)]

    def _advance(self, place, prediction) -> bool:
        place.row.advance(prediction)
        return True

    def _joined(self, place: _Place) -> bool:
        if place.row is not None:
            return True
        task = place.task
        if task.conditioning is None:
            started = time.perf_counter()
            task.tokens_cut = self._encoder.tokens_cut(task.request.prompt)
            task.conditioning = self._encoder.conditioning(task.request)
            self._synchronise()
            task.text_encode = time.perf_counter() - started
        place.row = Row(
            self._model,
            self._samplers.new(task.request.sampler),
            task.request,
            task.request.seeds[place.index],
            task.conditioning,
        )
        return True

    def _decode(self, place: _Place) -> None:
        task = place.task
        started = time.perf_counter()
        picture = decode(self._model, place.row.latents, place.row.seed)
        task.decode += time.perf_counter() - started
        task.pictures[place.index] = picture
        task.places.remove(place)
        if task.places:
            return
        del self._tasks[task.job_id]
        self._outcomes.append(
            JobFinished(
                job_id=task.job_id,
                pictures=tuple(task.pictures[i] for i in sorted(task.pictures)),
                times=StageTimes(
                    text_encode=task.text_encode, denoise=task.denoise, decode=task.decode
                ),
                prompt_tokens_cut=task.tokens_cut,
            )
        )

    def _synchronise(self) -> None:
        if self._model.device.type == "cuda":
            torch.cuda.current_stream(self._model.device).synchronize()
