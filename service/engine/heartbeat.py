"""How long an engine may be silent before it is taken for dead."""

from collections.abc import Collection
from typing import Final

from service.core.events import OutOfMemoryHit, StepBaseline, Stepped
from service.core.spec import GenerationSpec
from service.core.stage import Stage
from service.core.work import places
from service.engine.protocol import StageStarted

TIMES: Final = 10
"""A step that takes so many times its usual time does not come back."""

STEP_FLOOR_SECONDS: Final = 5.0
"""Never less for a step: to kill a healthy engine costs a reload, seconds at least, and what it
was working on. A machine that swaps, or is moved to another host, stands still for as long."""

STAGE_FLOOR_SECONDS: Final = 20.0
"""Never less for what is no usual step: text encoding, decoding, checking, waking up, and the
first step of a size in a new process, which loads kernels."""

LEARNING_RATE: Final = 0.2

GROWTH: Final = 2
"""How a step grows with the pixels of an image at most: attention compares each with each."""

LATE_SHARE: Final = 0.5
"""Of the limit: an engine that has been silent for so long is not ready for new work."""

Size = tuple[str, int]
"""A model, and the pixels of an image."""


class Heartbeat:
    """The usual time of a step of each size and batch, learned from the steps that were done."""

    def __init__(self, most: float) -> None:
        self._most = most
        """What is allowed where nothing was learned yet, and never exceeded."""
        self._usual: dict[Size, dict[int, float]] = {}
        """Seconds by images in the step."""

        self._warm: set[Size] = set()
        """Sizes that this process has done a step of."""
        self._trying = False
        """Whether a step was begun that is not done."""
        self._recovering = False
        """Whether memory ran out since the last step that was done."""

    def renew(self) -> None:
        """Begin with another process: what is usual holds, but not for its first steps."""
        self._warm.clear()
        self._trying = self._recovering = False

    def hear(self, said: StageStarted | Stepped | OutOfMemoryHit | StepBaseline) -> None:
        """Learn from what the engine says.

        After an out-of-memory the next step is not a usual one: what is done about it may be slow.
        It says so before it says that memory ran out, by beginning a step twice.
        """
        match said:
            case Stepped():
                size = said.model_id, said.pixels // said.batch_size
                self._observe(size, images=said.batch_size, seconds=said.seconds)
                self._recovering = False
            case StepBaseline():
                size = said.model_id, said.pixels
                self._observe(size, images=said.images, seconds=said.seconds)
            case StageStarted() if said.stage == Stage.DENOISE and not self._trying:
                self._trying = True
                return
            case StageStarted() if said.stage == Stage.DENOISE:
                self._recovering = True
            case OutOfMemoryHit():
                self._recovering = True
        self._trying = False

    def _observe(self, size: Size, *, images: int, seconds: float) -> None:
        self._warm.add(size)
        batches = self._usual.setdefault(size, {})
        known = batches.get(images, seconds)
        learned = known + LEARNING_RATE * (seconds - known)
        # With less memory every further step may take as long as this one.
        batches[images] = max(learned, seconds) if self._recovering else learned

    def limit(self, stage: Stage, work: Collection[GenerationSpec]) -> float | None:
        """Return how many seconds of silence are too many in a stage with ``work`` in the engine.

        None is no limit: a network decides how long fetching takes. The slowest size
        counts, as it may be the one that runs.
        """
        if stage == Stage.FETCH:
            return None
        if stage == Stage.LOAD:
            return self._most
        images: dict[Size, float] = {}
        for request in work:
            size = request.model, request.largest_pixels
            images[size] = images.get(size, 0) + places(request)
        usual = [self._step(size, count) for size, count in images.items()]
        known = [seconds for seconds in usual if seconds is not None]
        if self._recovering or len(known) < len(usual) or not known:
            return self._most
        usually = stage == Stage.DENOISE and self._warm.issuperset(images)
        floor = STEP_FLOOR_SECONDS if usually else STAGE_FLOOR_SECONDS
        return min(self._most, max(floor, TIMES * max(known)))

    def _step(self, size: Size, images: float) -> float | None:
        """Return the most that a step of up to so many images usually takes, None if unknown.

        More images than were seen together take longer in proportion at most. A size that
        was not seen takes no longer than a larger one, nor than ``GROWTH`` makes of a smaller.
        """
        model, pixels = size
        seen = {known: batches for (of, known), batches in self._usual.items() if of == model}
        if pixels in seen:
            seen = {pixels: seen[pixels]}
        return min(
            (
                max(batches.values())
                * max(1.0, images / max(batches))
                * max(1.0, pixels / known) ** GROWTH
                for known, batches in seen.items()
            ),
            default=None,
        )
