"""The search for the settings with which a card is fastest, each tried in a process of its own."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from scripts.benchmark.rows import Row
from scripts.cards.choice import Settings, Trial, choose
from scripts.cards.images import difference
from scripts.cards.measure import ENGINE, Order, run

TILED: Final = 512
"""The tile of Stable Diffusion 1.5's VAE; up to this size tiling does nothing."""

BASE: Final[Settings] = {
    "DTYPE": "float16",
    "ATTENTION_SLICING": "false",
    "CPU_OFFLOAD": "none",
    "VAE_TILING": "false",
    "VAE_TILING_ABOVE": "0",
    "MAX_CONCURRENT_REQUESTS": "1",
}
"""Where the search begins on a GPU: nothing that trades speed for memory."""

NAMES: Final = tuple(BASE)


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is asked of a machine."""

    vram: float | None
    """Cap in GB; None without a GPU."""
    row: Row
    batch: int
    """Most images at a time to try."""
    vary: Sequence[str] = NAMES
    """Settings that may change."""

    @property
    def gpu(self) -> bool:
        """Whether there is a GPU."""
        return self.vram is not None

    @property
    def base(self) -> Settings:
        """Return where the search begins."""
        return BASE if self.gpu else {**BASE, "DTYPE": "float32"}

    @property
    def large(self) -> bool:
        """Whether tiling does anything."""
        return max(self.row.width, self.row.height) > TILED

    def unasked(self) -> Iterator[str]:
        """Say what cannot be tried here, and why."""
        if not self.gpu:
            yield "DTYPE=float16: a CPU does not compute in it"
            yield "CPU_OFFLOAD=model, sequential: there is no GPU to offload from"
            yield "VRAM: there is none; host memory stands in its place"
        if not self.large:
            yield f"VAE_TILING, VAE_TILING_ABOVE: no effect on images up to {TILED}"

    def references(self) -> list[Settings]:
        """Return what images are compared with: of these, the first that works.

        Offloading does not change what is computed, only where it waits.
        """
        offloads = ("none", "model", "sequential") if self.gpu else ("none",)
        return [{**self.base, "DTYPE": "float32", "CPU_OFFLOAD": value} for value in offloads]

    def leanest(self) -> Settings:
        """Return where a search goes on that has found nothing that works."""
        return {**self.base, "VAE_TILING_ABOVE": str(TILED) if self.large else "0"}

    def stages(self) -> list[Sequence[Settings]]:
        """Return the stages of the search: changes, one of which is made to the best so far.

        All combinations would be hundreds of minutes on a card for which the file is meant.
        """
        dtypes = ("float16", "bfloat16", "float32") if self.gpu else ("float32", "bfloat16")
        values: Mapping[str, Sequence[str]] = {
            "DTYPE": dtypes,
            "VAE_TILING_ABOVE": [str(TILED)] if self.large else [],
            "VAE_TILING": ["true"] if self.large else [],
            "CPU_OFFLOAD": ["model", "sequential"] if self.gpu else [],
            "ATTENTION_SLICING": ["true"],
            "MAX_CONCURRENT_REQUESTS": [str(count) for count in range(2, self.batch + 1)],
        }
        return [[{name: value} for value in values[name]] for name in values if name in self.vary]


@dataclass(kw_only=True)
class Search:
    """One search on one machine."""

    question: Question
    rounds: int
    folder: Path
    """Where images go."""
    fixed: Mapping[str, str]
    """Settings that all trials share: the model, the device, the cap."""
    tried: Callable[[Trial], object] = lambda _trial: None
    trials: list[Trial] = field(default_factory=list)
    reference: Trial | None = None
    """The first that worked, which is the most exact one that does."""

    def run(self) -> Sequence[Trial]:
        """Measure the reference, then stage by stage what changes one thing of the best so far."""
        for settings in self.question.references():
            if self.trial(settings).measured.worked:
                break
        self.trial(self.question.base)
        for stage in self.question.stages():
            best, _ = choose(self.trials, self.question.vram)
            start = self.question.leanest() if best is None else best.settings
            for change in stage:
                self.trial({**start, **change})
        return self.trials

    def trial(self, settings: Settings) -> Trial:
        """Measure settings, unless that was done."""
        known = next((each for each in self.trials if each.settings == settings), None)
        if known is not None:
            return known
        place = self.folder / f"{len(self.trials)}"
        place.mkdir()
        order = Order(
            contender=ENGINE,
            row=self.question.row,
            rounds=self.rounds,
            batch=int(settings["MAX_CONCURRENT_REQUESTS"]),
            folder=str(place),
        )
        measured = run(order, {**self.fixed, **settings})
        first = self.trials.index(self.reference) if self.reference else len(self.trials)
        gap = difference(place, self.folder / f"{first}") if measured.worked else None
        found = Trial(settings=settings, measured=measured, difference=gap)
        self.trials.append(found)
        if measured.worked and self.reference is None:
            self.reference = found
        self.tried(found)
        return found

    @property
    def most(self) -> int:
        """Trials at most, for a progress bar."""
        return len(self.question.references()) + 1 + sum(map(len, self.question.stages()))
