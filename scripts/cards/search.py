"""Trying settings, each in a process of its own, and going on from the best."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from scripts.cards.child import run
from scripts.cards.choice import Bounds, Trial, choose
from scripts.cards.order import ENGINE, Order
from scripts.cards.pictures import difference
from scripts.cards.settings import NAMES, Question, Settings, leanest, references, stages


@dataclass(kw_only=True)
class Search:
    """One search on one machine."""

    question: Question
    bounds: Bounds
    width: int
    height: int
    steps: int
    rounds: int
    folder: Path
    """Where pictures go."""
    fixed: Mapping[str, str]
    """Settings that all trials share: the model, the device, the cap."""
    tried: Callable[[Trial], object] = lambda _trial: None
    trials: list[Trial] = field(default_factory=list)
    reference: Trial | None = None
    """The first that worked, which is the most exact one that does."""

    def run(self) -> Sequence[Trial]:
        """Measure the reference, then stage by stage what changes one thing of the best so far."""
        for settings in references(self.question):
            if self.trial(settings).measured.worked:
                break
        self.trial(self.question.base)
        for stage in stages(self.question):
            best = choose(self.trials, self.bounds).best
            for settings in stage(leanest(self.question) if best is None else best.settings):
                self.trial(settings)
        return self.trials

    def trial(self, settings: Settings) -> Trial:
        """Measure settings, unless that was done."""
        known = next((each for each in self.trials if each.settings == settings), None)
        if known is not None:
            return known
        place = self.folder / f"{len(self.trials)}"
        place.mkdir()
        count = int(settings["MAX_CONCURRENT_REQUESTS"])
        order = Order(
            contender=ENGINE,
            width=self.width,
            height=self.height,
            steps=self.steps,
            rounds=self.rounds,
            batch=count,
            folder=str(place),
        )
        measured = run(order, {**self.fixed, **{name: settings[name] for name in NAMES}})
        against = place if self.reference is None else self._place(self.reference)
        gap = difference(place, against) if measured.worked else None
        found = Trial(settings=settings, measured=measured, difference=gap)
        self.trials.append(found)
        if measured.worked and self.reference is None:
            self.reference = found
        self.tried(found)
        return found

    def _place(self, trial: Trial) -> Path:
        return self.folder / f"{self.trials.index(trial)}"

    @property
    def most(self) -> int:
        """Trials at most, for a progress bar."""
        count = len(references(self.question)) + 1
        return count + sum(len(stage(self.question.base)) for stage in stages(self.question))
