"""Settings that were tried: which of them is the best and why, as a table and as a file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from scripts.cards.images import Difference
from scripts.cards.measure import Measured
from scripts.written import table
from service.gpu.card import CONTEXT, GIB

Settings = Mapping[str, str]

TIE: Final = 0.03
"""Times closer than this are taken for the same."""

MARGIN: Final = 0.4
"""GB of the cap that stay free."""

DIFFERENCE: Final = 3.0
"""Mean difference from the reference, in grey levels of 255, that still is the same image."""

COLUMNS: Final = ("settings", "s/image", "s/step", "peak, GB", "difference", "PSNR, dB", "")


@dataclass(frozen=True, kw_only=True)
class Trial:
    """Settings that were tried, what was measured, and how far the images are off."""

    settings: Settings
    measured: Measured
    difference: Difference | None = None
    """From the reference; None where one of both made no image."""

    @property
    def seconds(self) -> float:
        """Median of an image's time; infinite where there is no image."""
        return median(self.measured.seconds) if self.measured.worked else float("inf")

    @property
    def peak(self) -> float:
        """GB of VRAM of the whole process; on a CPU those of the host."""
        if not self.measured.gpu:
            return self.measured.host / GIB
        # Where the driver does not tell, what is kept for CUDA itself is taken for its part.
        return (self.measured.process or self.measured.reserved + CONTEXT) / GIB

    def refusal(self, vram: float | None) -> str:
        """Return why it cannot be chosen for a card of so many GB; empty if it can."""
        if not self.measured.worked:
            return self.measured.failure or "no image"
        if vram is not None and self.peak > vram - MARGIN:
            return f"takes more than {vram:g} - {MARGIN:g} GB"
        if self.difference is None:
            return "nothing to compare with"
        if self.difference.mean > DIFFERENCE:
            return f"differs by more than {DIFFERENCE:g}"
        return ""

    def cells(self, base: Settings, vram: float | None) -> tuple[str, ...]:
        """Return its line of the table."""
        name, gap = shown(self.settings, base), self.difference
        if not self.measured.worked:
            return (name, "-", "-", "-", "-", "-", self.refusal(vram))
        return (
            name,
            f"{self.seconds:.2f}",
            f"{self.measured.step_seconds:.3f}",
            f"{self.peak:.2f}",
            "-" if gap is None else f"{gap.mean:.2f}",
            "-" if gap is None else f"{gap.psnr:.1f}",
            "; ".join(filter(None, [self.refusal(vram), *self.measured.rungs])),
        )


def choose(trials: Sequence[Trial], vram: float | None) -> tuple[Trial | None, str]:
    """Return the fastest that may be chosen, or None; and why.

    Of equally fast ones the smaller is taken, then the earlier: it changes less of what the
    service does by itself.
    """
    if allowed := [trial for trial in trials if not trial.refusal(vram)]:
        fastest = min(trial.seconds for trial in allowed)
        equal = [trial for trial in allowed if trial.seconds <= fastest * (1 + TIE)]
        # A tenth of a GB is less than what an allocator keeps by chance.
        best = min(equal, key=lambda trial: round(trial.peak, 1))
        why = f"fastest that may be chosen: {best.seconds:.2f} s an image"
        many = f", the smallest of {len(equal)} equally fast ones" if len(equal) > 1 else ""
        return best, why + many
    if not trials:
        return None, "nothing was tried"
    worked = [trial for trial in trials if trial.measured.worked]
    if not worked:
        return None, f"nothing worked; the first said: {trials[0].refusal(vram)}"
    nearest = min(worked, key=lambda trial: trial.peak)
    return None, (
        f"nothing may be chosen; the smallest took {nearest.peak:.2f} GB and "
        f"{nearest.seconds:.2f} s, but {nearest.refusal(vram)}"
    )


def figures(trials: Sequence[Trial], base: Settings, vram: float | None) -> str:
    """Return all trials as a Markdown table."""
    return table(COLUMNS, [trial.cells(base, vram) for trial in trials])


def shown(settings: Settings, base: Settings) -> str:
    """Return what differs from the base, the number format always."""
    changed = {k: v for k, v in settings.items() if k == "DTYPE" or v != base.get(k)}
    return " ".join(f"{name}={value}" for name, value in changed.items())


def env_text(settings: Settings, about: str) -> str:
    """Return a file of settings that Docker Compose and a shell read alike.

    No quotes, no spaces, no variables: what both take for the same.
    """
    lines = [f"# {line}".rstrip() for line in about.splitlines()]
    lines += [f"{name}={value}" for name, value in settings.items()]
    return "\n".join(lines) + "\n"
