"""Jobs inside the step loop, and which of their pictures moves next."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from service.diffusion.encoding import Conditioning
from service.diffusion.generation import GenerationRequest, Picture, StageTimes
from service.diffusion.row import Row

RECOVERY_STEPS = 200
"""Steps of a group without an out-of-memory after which its batch may double again."""

Size = tuple[int, int]
"""Width and height in pixels: what rows must have in common to share a UNet call."""


@dataclass(kw_only=True, eq=False)
class Place:
    """One picture of a task: waiting (no row yet), moving, or waiting to be decoded."""

    task: "Task"
    index: int
    row: Row | None = None

    @property
    def size(self) -> Size:
        """The group it belongs to."""
        return self.task.request.width, self.task.request.height

    @property
    def finished(self) -> bool:
        """Whether only the decoding is left."""
        return self.row is not None and self.row.evaluations_left == 0

    @property
    def work_left(self) -> int:
        """UNet evaluations still to do, times pixels."""
        evaluations = self.row.evaluations_left if self.row else self.task.request.steps
        return self.task.request.width * self.task.request.height * evaluations


@dataclass(kw_only=True, eq=False)
class Task:
    """One job inside the loop."""

    job_id: str
    request: GenerationRequest
    arrived: int
    """The loop's work clock when it came, in pixel steps."""
    places: list[Place] = field(default_factory=list)
    """Its pictures that are not decoded yet."""
    pictures: dict[int, Picture] = field(default_factory=dict)
    conditioning: Conditioning | None = None
    text_encode: float = 0.0
    denoise: float = 0.0
    vae_decode: float = 0.0
    safety: float = 0.0

    def __post_init__(self) -> None:
        """Give every picture its place."""
        self.places = [Place(task=self, index=i) for i in range(self.request.num_images)]

    @property
    def steps_done(self) -> int:
        """Steps done, averaged down over the pictures."""
        moving = sum(place.row.steps_done for place in self.places if place.row)
        finished = len(self.pictures) * self.request.steps
        return (moving + finished) // self.request.num_images

    @property
    def times(self) -> StageTimes:
        """What it has cost so far, in seconds."""
        return StageTimes(
            text_encode=self.text_encode,
            denoise=self.denoise,
            vae_decode=self.vae_decode,
            safety=self.safety,
        )


class BatchLimits:
    """How many pictures a step may move, by size: lowered where memory ran out.

    ``fits`` tells how many pictures of so many pixels, up to a number, memory has room for.
    """

    def __init__(self, most: int, *, fits: Callable[[int, int], int] | None = None) -> None:
        self._most = most
        self._fits = fits or (lambda _pixels, count: count)
        self._lowered: dict[Size, int] = {}
        self._calm: dict[Size, int] = {}

    def of(self, size: Size) -> int:
        """Return the limit of a group."""
        width, height = size
        return self._fits(width * height, self._lowered.get(size, self._most))

    def cap(self, most: int) -> None:
        """Make no batch of any size larger than this from now on."""
        self._most = min(self._most, most)
        self._lowered = {size: count for size, count in self._lowered.items() if count < most}

    def lower(self, size: Size, failed: int) -> None:
        """Halve what did not fit; one picture is always tried."""
        self._lowered[size] = max(1, min(failed, self._lowered.get(size, self._most)) // 2)
        self._calm[size] = 0

    def moved(self, size: Size) -> None:
        """Count a step without trouble; after many of them try a larger batch again."""
        if size not in self._lowered:
            return
        self._calm[size] += 1
        if self._calm[size] >= RECOVERY_STEPS:
            self._calm[size] = 0
            self._lowered[size] *= 2
            if self._lowered[size] >= self._most:
                del self._lowered[size]


def next_batch(places: Iterable[Place], limits: BatchLimits, clock: int) -> Sequence[Place]:
    """Choose the pictures of one size that move now, in arrival order.

    It is the group that holds the highest response ratio (waited + left) / left, and of a
    group with more pictures than fit into a step those that have the highest: Brinch
    Hansen's Highest Response Ratio Next (1971), asked again before every step. A short job
    soon overtakes a long one, what runs tends to run to its end instead of everyone being
    late, and a waiting job's ratio grows until it is its turn, so none starves. Waiting is
    counted in pixel steps done for anyone (``clock``), not in seconds, so that the order
    depends on nothing but the requests.
    """
    groups: dict[Size, list[Place]] = {}
    for place in places:
        groups.setdefault(place.size, []).append(place)
    group = max(groups.values(), key=lambda group: max(_urgency(p, clock) for p in group))
    most = limits.of(group[0].size)
    if len(group) <= most:
        return group
    chosen = sorted(group, key=lambda place: _urgency(place, clock), reverse=True)[:most]
    return [place for place in group if place in chosen]


def _urgency(place: Place, clock: int) -> tuple[float, int]:
    """Return the response ratio; between equals, as on arrival, the shorter one goes first."""
    waited = clock - place.task.arrived
    return (waited + place.work_left) / place.work_left, -place.work_left
