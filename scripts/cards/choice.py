"""Which of the settings that were tried is the best, and why."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from scripts.cards.order import Measured
from scripts.cards.pictures import Difference
from scripts.cards.settings import Settings
from service.diffusion.card import CONTEXT

GIB: Final = 2**30

TIE: Final = 0.03
"""Times closer than this are taken for the same."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """Settings that were tried, what was measured, and how far the pictures are off."""

    settings: Settings
    measured: Measured
    difference: Difference | None = None
    """From the reference; None where one of both made no picture."""

    @property
    def seconds(self) -> float:
        """Median of a picture's time; infinite where there is no picture."""
        return median(self.measured.seconds) if self.measured.worked else float("inf")

    @property
    def peak(self) -> float:
        """Bytes of VRAM of the whole process; on a CPU those of the host."""
        if not self.measured.gpu:
            return self.measured.host
        # Where the driver does not tell, what is kept for CUDA itself is taken for its part.
        return self.measured.process or self.measured.reserved + CONTEXT


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What a setting must keep."""

    vram: float | None
    """GB of the card; None without one."""
    margin: float
    """GB of these that stay free."""
    difference: float
    """Mean of the absolute differences from the reference, in grey levels."""

    def refusal(self, trial: Trial) -> str:
        """Return why a setting cannot be chosen; empty if it can."""
        if not trial.measured.worked:
            return trial.measured.failure or "no picture"
        if self.vram is not None and trial.peak > (self.vram - self.margin) * GIB:
            return f"takes more than {self.vram:g} - {self.margin:g} GB"
        if trial.difference is None:
            return "nothing to compare with"
        if trial.difference.mean > self.difference:
            return f"differs by more than {self.difference:g}"
        return ""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The best trial, or None and why there is none."""

    best: Trial | None
    reason: str


def choose(trials: Sequence[Trial], bounds: Bounds) -> Choice:
    """Take the fastest that may be chosen; of equally fast ones the smaller, then the earlier.

    Earlier ones change less of what the service does by itself.
    """
    refusals: Mapping[int, str] = {n: bounds.refusal(trial) for n, trial in enumerate(trials)}
    allowed = [trial for n, trial in enumerate(trials) if not refusals[n]]
    if allowed:
        fastest = min(trial.seconds for trial in allowed)
        equal = [trial for trial in allowed if trial.seconds <= fastest * (1 + TIE)]
        # A tenth of a GB is less than what an allocator keeps by chance.
        best = min(equal, key=lambda trial: round(trial.peak / GIB, 1))
        return Choice(best=best, reason=_why(best, len(equal)))
    if not trials:
        return Choice(best=None, reason="nothing was tried")
    worked = [trial for trial in trials if trial.measured.worked]
    if not worked:
        return Choice(best=None, reason=f"nothing worked; the first said: {refusals[0]}")
    nearest = min(worked, key=lambda trial: trial.peak)
    number = next(n for n, trial in enumerate(trials) if trial is nearest)
    return Choice(
        best=None,
        reason=(
            f"nothing may be chosen; the smallest took {nearest.peak / GIB:.2f} GB and "
            f"{nearest.seconds:.2f} s, but {refusals[number]}"
        ),
    )


def _why(best: Trial, equal: int) -> str:
    said = f"fastest that may be chosen: {best.seconds:.2f} s a picture"
    return said + (f", the smallest of {equal} equally fast ones" if equal > 1 else "")
