"""Jobs inside the step loop, and which of their images moves next."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from service.core.capacity import MemoryUse
from service.core.events import JobFinished
from service.core.image import RawImage
from service.core.spec import GenerationSpec
from service.core.stage import Stage, StageTimes
from service.core.work import image_places
from service.diffusion.adapters.store import Lease
from service.diffusion.conditioning.encoding import Conditioning
from service.diffusion.families.base import BatchKey, Encoded
from service.diffusion.loop.row import Row
from service.diffusion.loop.starts.base import Start

RECOVERY_STEPS = 200
"""Steps of a group without an out-of-memory after which its batch may double again."""


@dataclass(kw_only=True, eq=False)
class Sample:
    """One image of a task: waiting (no row yet), moving, or waiting to be decoded."""

    task: "Task"
    index: int
    row: Row | None = None
    start: Start = field(init=False)
    key: BatchKey = field(init=False)
    """The group that it belongs to."""
    second: GenerationSpec | None = field(init=False)
    """What it draws after this pass, a request of its own; None in the last one."""
    steps_before: int = 0
    """Steps of the pass before."""

    def __post_init__(self) -> None:
        """Begin as its task says."""
        self.start, self.key = self.task.start, self.task.key
        self.second = self.task.request.second

    def go_on(self, start: Start, key: BatchKey) -> None:
        """Begin the second pass."""
        self.steps_before = self.steps_done
        self.start, self.key, self.row, self.second = start, key, None, None

    @property
    def in_second(self) -> bool:
        """Whether it is in its second pass."""
        return self.start is not self.task.start

    @property
    def pixels(self) -> int:
        """Width times height of what its steps draw."""
        return self.start.request.width * self.start.request.height

    @property
    def places(self) -> float:
        """Images that it counts as in a step."""
        return self.task.places

    @property
    def finished(self) -> bool:
        """Whether its pass is over: of one that was interrupted after its first step."""
        if self.row is None:
            return False
        return not self.row.evaluations_left or (self.task.interrupted and self.row.position > 0)

    @property
    def steps_done(self) -> int:
        """Steps done so far."""
        return self.steps_before + (self.row.steps_done if self.row else 0)

    @property
    def work_left(self) -> float:
        """Evaluations of the denoiser still to do, times pixels."""
        left = self.row.evaluations_left if self.row else self.start.steps
        if self.task.interrupted:
            return self.pixels * self.places * min(left, 1)
        later = self.task.request.hires_steps * math.prod(self.task.request.drawn_size)
        return self.places * (self.pixels * left + (later if self.second else 0))


@dataclass(kw_only=True, eq=False)
class Task:
    """One job inside the loop."""

    job_id: str
    epoch: int
    request: GenerationSpec
    key: BatchKey
    """The group that its images belong to at first."""
    arrived: int
    """The loop's work clock when it came, in pixel steps."""
    start: Start
    """That of its images, or of their first pass."""
    adapters: Lease = field(default_factory=lambda: Lease(ready=True))
    places: float = field(init=False)
    """Images that each of its images counts as."""
    samples: list[Sample] = field(default_factory=list)
    """Its images that are not decoded yet."""
    images: dict[int, RawImage] = field(default_factory=dict)
    steps_drawn: int = 0
    """Steps done, summed over the decoded images."""
    interrupted: bool = False
    """Whether it ends early, with its unfinished images."""
    conditioning: dict[bool, Conditioning] = field(default_factory=dict)
    """What guides its images, by whether it is in their second pass."""
    encoded: Sequence[Encoded] | None = None
    """What the VAE found in its input images."""
    seconds: dict[Stage, float] = field(default_factory=lambda: defaultdict(float))

    def __post_init__(self) -> None:
        """Make a sample of every image."""
        self.places = image_places(self.request)
        self.samples = [Sample(task=self, index=i) for i in range(self.request.num_images)]

    @property
    def steps_done(self) -> int:
        """Steps done, averaged down over the images."""
        moving = sum(each.steps_done for each in self.samples)
        return (moving + self.steps_drawn) // self.request.num_images

    def finished(self, memory: MemoryUse) -> JobFinished:
        """Return the report of the job, all of whose images are decoded; it has its adapters."""
        read = self.conditioning[False]
        return JobFinished(
            job_id=self.job_id,
            epoch=self.epoch,
            images=tuple(self.images[index] for index in sorted(self.images)),
            times=self.times,
            memory=memory,
            prompt_tokens=read.tokens,
            prompt_tokens_cut=read.tokens_cut,
            adapter_hashes=self.adapters.hashes(words=False),
            embeddings=self.adapters.hashes(words=True),
            interrupted_after=self.interrupted_after,
        )

    @property
    def interrupted_after(self) -> int | None:
        """Steps done of a job that ended early; None where all were."""
        return self.steps_done if self.steps_done < self.request.total_steps else None

    @property
    def times(self) -> StageTimes:
        """What it has cost so far, in seconds."""
        return StageTimes(**self.seconds)


class BatchLimits:
    """Most images that a step may move, by group: lowered where memory ran out.

    ``fits`` returns how many images of so many pixels, up to a number, fit into memory.
    """

    def __init__(self, most: int, *, fits: Callable[[int, int], int] | None = None) -> None:
        self._most = most
        self._fits = fits or (lambda _pixels, count: count)
        self._lowered: dict[BatchKey, int] = {}
        self._calm: dict[BatchKey, int] = {}

    def of(self, key: BatchKey, pixels: int) -> int:
        """Return the limit of a group whose largest image has so many pixels."""
        return self._fits(pixels, self._lowered.get(key, self._most))

    def cap(self, most: int) -> None:
        """Make no batch of any group larger than this from now on."""
        self._most = min(self._most, most)
        self._lowered = {key: count for key, count in self._lowered.items() if count < most}

    def lower(self, key: BatchKey, failed: int) -> None:
        """Halve what did not fit; one image is always tried."""
        self._lowered[key] = max(1, min(failed, self._lowered.get(key, self._most)) // 2)
        self._calm[key] = 0

    def moved(self, key: BatchKey) -> None:
        """Count a step without trouble; after many of them try a larger batch again."""
        if key not in self._lowered:
            return
        self._calm[key] += 1
        if self._calm[key] >= RECOVERY_STEPS:
            self._calm[key] = 0
            self._lowered[key] *= 2
            if self._lowered[key] >= self._most:
                del self._lowered[key]


def next_batch(samples: Iterable[Sample], limits: BatchLimits, clock: int) -> Sequence[Sample]:
    """Choose the images of one group that move now, in arrival order.

    It is the group that holds the highest response ratio (waited + left) / left, and of a
    group with more images than fit into a step those that have the highest: Brinch
    Hansen's Highest Response Ratio Next (1971), asked again before every step. A short job
    soon overtakes a long one, what runs tends to run to its end instead of everyone being
    late, and a waiting job's ratio grows until it is its turn, so none starves. Waiting is
    counted in pixel steps done for anyone (``clock``), not in seconds, so that the order
    depends on nothing but the requests.
    """
    groups: dict[BatchKey, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(sample.key, []).append(sample)
    group = max(groups.values(), key=lambda group: max(_urgency(each, clock) for each in group))
    most: float = limits.of(group[0].key, max(each.pixels for each in group))
    if sum(each.places for each in group) <= most:
        return group
    chosen: list[Sample] = []
    for each in sorted(group, key=lambda each: _urgency(each, clock), reverse=True):
        most -= each.places
        if most < 0 and chosen:  # One image is always tried.
            break
        chosen.append(each)
    return [sample for sample in group if sample in chosen]


def _urgency(sample: Sample, clock: int) -> tuple[float, float]:
    """Return the response ratio; between equals, as on arrival, the shorter one goes first."""
    waited = clock - sample.task.arrived
    return (waited + sample.work_left) / sample.work_left, -sample.work_left
