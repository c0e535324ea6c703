"""The step loop: requests join and leave a running batch between two denoising steps."""

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from service.diffusion.batch import predict
from service.diffusion.decode import checked, decode, has_safety_checker
from service.diffusion.encoding import Conditioning, Encoder
from service.diffusion.failures import failed
from service.diffusion.footprint import Footprint
from service.diffusion.generation import (
    Capacity,
    GenerationRequest,
    JobCancelled,
    JobFinished,
    MemoryUse,
    Outcome,
    Picture,
    Stepped,
)
from service.diffusion.ladder import Ladder
from service.diffusion.load import Model
from service.diffusion.memory import (
    Meter,
    free_cache,
    is_device_lost,
    is_out_of_memory,
    synchronise,
)
from service.diffusion.order import BatchLimits, Place, Task, next_batch
from service.diffusion.preview import Previews
from service.diffusion.room import Room
from service.diffusion.row import Row
from service.heap import Housekeeping

T = TypeVar("T")
Fault = Callable[[str, int], None]
"""Called with a stage's name and its number of pictures before the stage; tests raise in it."""


def no_fault(stage: str, pictures: int) -> None:
    """Let a stage go on."""


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
        self.model = model
        self._outcomes: list[Outcome] = []
        self.fault: Fault = fault or no_fault
        self._meter = Meter(model.device)
        self._footprint = Footprint(self._meter)
        self._ladder = Ladder(model, self._outcomes.append)
        self._room = Room(
            self._footprint,
            self._meter,
            self._ladder.parking,
            tiles=self._ladder.tiles.able,
            blind=model.offloaded,
        )
        self._limits = BatchLimits(batch_limit, fits=self._room.pictures)
        self._samplers = model.samplers
        self._encoder = Encoder(model)
        self.previews = Previews(model)
        self._tasks: dict[str, Task] = {}
        self._clock = 0
        """Pixel steps done so far, for anyone: what waiting is measured with."""
        self._decoded_last = False
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
        with self.model.without_gradients():
            if finished and not (self._decoded_last and moving):
                self._decode(finished[0])
                self._decoded_last = True
            elif moving:
                self._denoise(next_batch(moving, self._limits, self._clock))
                self._decoded_last = False
        outcomes = list(self._outcomes)
        self._outcomes.clear()
        return outcomes

    def cap_batch(self, most: int) -> None:
        """Move at most so many pictures in one step from now on."""
        self._limits.cap(most)

    def capacity(self) -> Capacity | None:
        """Return how much memory a picture may take, and what it will; None if nothing tells."""
        return self._room.capacity()

    def forget_footprint(self) -> None:
        """Measure anew what pictures take."""
        self._footprint.forget()

    def capacity_news(self) -> Capacity | None:
        """Return the capacity where it is another than was returned here before."""
        return self._room.news()

    def memory(self) -> MemoryUse:
        """Return what the process holds now."""
        return self._meter.use()

    def tidy(self) -> None:
        """Give back host memory that finished pictures left behind: now if idle, else seldom."""
        self._housekeeping.tidy(idle=not self.busy)

    def _denoise(self, batch: Sequence[Place]) -> None:
        ready = [(place, row) for place in batch if (row := self._row(place)) is not None]
        started = time.perf_counter() - self._ladder.lost
        moved = [
            (place, row)
            for place, row, prediction in self._predictions(ready)
            if self._attempt(place.task, "denoise", lambda: row.advance(prediction), once=True)  # noqa: B023 - called at once
        ]
        moved = [(place, row) for place, row in moved if self._alive(place.task)]
        if not moved:
            return
        # One wait for the GPU per step: without it steps would queue up ahead of a cancel,
        # and the seconds would be those of the launch.
        synchronise(self.model.device)
        seconds = time.perf_counter() - self._ladder.lost - started
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
                memory=self._meter.use(),
            )
        )
        self._outcomes += self.previews.after(moved)

    def _row(self, place: Place) -> Row | None:
        """Return the place's row, which is made when its first step comes; None if it failed."""
        task = place.task
        if place.row is None and self._alive(task):
            request = task.request
            # First of all: a pair that cannot be drawn costs no work.
            scheduler = self._attempt(
                task, "denoise", lambda: self._samplers.new(request.sampler, request.steps)
            )
            conditioning = self._conditioning(task) if scheduler is not None else None
            if conditioning is not None:
                seed = request.seeds[place.index]
                place.row = self._attempt(
                    task,
                    "denoise",
                    lambda: Row(self.model, scheduler, request, seed, conditioning),
                )
        return place.row if self._alive(task) else None

    def _conditioning(self, task: Task) -> Conditioning | None:
        if task.conditioning is None:
            started = time.perf_counter() - self._ladder.lost
            task.conditioning = self._attempt(
                task, "text_encode", lambda: self._encoded(task.request)
            )
            synchronise(self.model.device)
            task.text_encode += time.perf_counter() - self._ladder.lost - started
        return task.conditioning

    def _encoded(self, request: GenerationRequest) -> Conditioning:
        self.fault("text_encode", 1)
        return self._encoder.conditioning(request)

    def _predictions(
        self, batch: Sequence[tuple[Place, Row]]
    ) -> list[tuple[Place, Row, torch.Tensor]]:
        """Ask the UNet about all rows at once; if that fails, about fewer at a time.

        So an error ends the job that causes it and no other, and memory that does not
        suffice for all may suffice for half of them, or for each.
        """
        batch = [(place, row) for place, row in batch if self._alive(place.task)]
        if not batch:
            return []
        try:
            return self._ladder.climb(
                "denoise", lambda: self._predicted(batch), pictures=len(batch)
            )
        except Exception as error:
            if is_device_lost(error):
                raise
            if len(batch) == 1:
                self._fail(batch[0][0].task, error)
                return []
            some = 1
            if is_out_of_memory(error):
                self._limits.lower(batch[0][0].size, len(batch))
                some = (len(batch) + 1) // 2
        # Outside the handler: the error's frames keep the tensors alive that did not fit.
        free_cache(self.model.device)
        parts = [batch[first : first + some] for first in range(0, len(batch), some)]
        return [prediction for part in parts for prediction in self._predictions(part)]

    def _predicted(
        self, batch: Sequence[tuple[Place, Row]]
    ) -> list[tuple[Place, Row, torch.Tensor]]:
        self.fault("denoise", len(batch))
        pixels = sum(row.pixels * len(row.conditioning.texts) for _, row in batch)
        with self._footprint.measuring("denoise", pixels):
            predictions = predict(self.model, [row for _, row in batch])
        return [
            (place, row, prediction)
            for (place, row), prediction in zip(batch, predictions, strict=True)
        ]

    def _decode(self, place: Place) -> None:
        task, row = place.task, place.row
        if row is None:  # pragma: no cover - a finished place has one
            return
        started = time.perf_counter() - self._ladder.lost
        picture = self._attempt(task, "vae_decode", lambda: self._decoded(row), latents=row.latents)
        task.vae_decode += time.perf_counter() - self._ladder.lost - started
        if picture is not None:
            self.previews.learn(row.latents, picture)
        if picture is not None and has_safety_checker(self.model):
            started = time.perf_counter() - self._ladder.lost
            made = picture
            picture = self._attempt(task, "safety", lambda: self._checked(made))
            task.safety += time.perf_counter() - self._ladder.lost - started
        if picture is None:
            return
        self._ladder.parking.picture_made()
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
                memory=self._meter.use(),
                prompt_tokens_cut=task.conditioning.tokens_cut if task.conditioning else 0,
            )
        )

    def _decoded(self, row: Row) -> Picture:
        self.fault("vae_decode", 1)
        if self._ladder.tiles.used(row.latents):
            with self._ladder.tiles.applied(row.latents):
                return decode(self.model, row.latents, row.seed)
        with self._footprint.measuring("vae_decode", row.pixels):
            return decode(self.model, row.latents, row.seed)

    def _checked(self, picture: Picture) -> Picture:
        self.fault("safety", 1)
        return checked(self.model, picture)

    def _attempt(
        self,
        task: Task,
        stage: str,
        work: Callable[[], T],
        *,
        latents: torch.Tensor | None = None,
        once: bool = False,
    ) -> T | None:
        """Do one picture's work; if it fails its job fails, and None is returned."""
        try:
            if once:
                return self._ladder.once(stage, work)
            return self._ladder.climb(stage, work, latents=latents)
        except Exception as error:
            if is_device_lost(error):
                raise
            self._fail(task, error)
        return None

    def _fail(self, task: Task, error: Exception) -> None:
        if self._tasks.get(task.job_id) is not task:
            return
        del self._tasks[task.job_id]
        self._outcomes.append(failed(task.job_id, task.request, error, task.times))

    def _alive(self, task: Task) -> bool:
        return self._tasks.get(task.job_id) is task
