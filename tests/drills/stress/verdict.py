"""Whether memory is flat, and whether anything that is counted leaks."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import median
from typing import Final

from tests.drills.stress.meter import Sample

WARM_UP: Final = 0.25
"""Share of a phase in which every size, sampler and format comes for the first time."""

CONFIDENCE: Final = 1.96  # Standard deviations of a two-sided 95 % interval.
FEWEST: Final = 4  # Samples at rest after the warm-up, below which a slope says nothing.
SLACK: Final = 2
"""Files and threads more than ever in the first half that are no leak: pools fill late."""


@dataclass(frozen=True, kw_only=True)
class Slope:
    """Growth per generation, and the interval that holds the true one with 95 % confidence."""

    middle: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One series of one phase, in bytes, and what is thought of it."""

    phase: str
    name: str
    start: float
    warm: float
    end: float
    slope: Slope
    limit: float  # Bytes per generation.
    judged: bool  # Whether it counts; others are shown for comparison.

    @property
    def flat(self) -> bool:
        """Whether it is certain (95 %) that it grows by less than the limit."""
        return self.slope.high <= self.limit


Figure = Callable[[Sample], float]

MEMORY: Final[dict[str, tuple[Figure, bool]]] = {
    "service, anonymous": (lambda sample: sample.service.anonymous, True),
    "service, RSS": (lambda sample: sample.service.rss, True),
    "service, PSS": (lambda sample: sample.service.pss, False),
    "engine, anonymous": (lambda sample: sample.engine.anonymous, True),
    "engine, RSS": (lambda sample: sample.engine.rss, True),
    "engine, PSS": (lambda sample: sample.engine.pss, False),
}
"""Series by name, and whether they count: PSS depends on what else the machine runs."""

COUNTED: Final[dict[str, Figure]] = {
    "files of the service": lambda sample: sample.service.files,
    "sockets of the service": lambda sample: sample.service.sockets,
    "threads of the service": lambda sample: sample.service.threads,
    "files of the engine": lambda sample: sample.engine.files,
    "threads of the engine": lambda sample: sample.engine.threads,
}


def theil_sen(points: Sequence[tuple[float, float]]) -> Slope:
    """Return the median of the slopes of all pairs, with Sen's interval.

    Up to 29 % of the points may be anything without moving it far (P. K. Sen, Estimates of the
    Regression Coefficient Based on Kendall's Tau, 1968). No two points may have the same x.

    Raises:
        ValueError: there are too few points.

    """
    count = len(points)
    if count < FEWEST:
        raise ValueError(f"{count} points have no slope to speak of; {FEWEST} are needed")
    slopes = sorted((y2 - y1) / (x2 - x1) for (x1, y1), (x2, y2) in combinations(points, 2))
    spread = CONFIDENCE * math.sqrt(count * (count - 1) * (2 * count + 5) / 18)
    low = max(0, math.floor((len(slopes) - spread) / 2))
    return Slope(middle=median(slopes), low=slopes[low], high=slopes[-1 - low])


def after_warm_up(samples: Sequence[Sample]) -> list[Sample]:
    """Return the samples of one phase that count."""
    first, last = samples[0].generations, samples[-1].generations
    return [each for each in samples if each.generations >= first + WARM_UP * (last - first)]


def judge(samples: Sequence[Sample], limit: float) -> list[Judged]:
    """Judge every series of one phase; ``samples`` are those at rest, in their order."""
    counted = after_warm_up(samples)
    series = {**MEMORY, **_vram(samples[-1])}
    return [
        Judged(
            phase=samples[-1].phase,
            name=name,
            start=figure(samples[0]),
            warm=figure(counted[0]),
            end=figure(samples[-1]),
            slope=theil_sen([(each.generations, figure(each)) for each in counted]),
            limit=limit,
            judged=judged,
        )
        for name, (figure, judged) in series.items()
    ]


def _vram(sample: Sample) -> dict[str, tuple[Figure, bool]]:
    """Return the series of the GPU's memory; none without one."""

    def figure(kind: str) -> Figure:
        return lambda each: each.vram.get(kind, 0)

    # The peak of all times rises whenever a batch is larger than all before.
    return {f"GPU, {kind}": (figure(kind), kind != "peak") for kind in sample.vram}


def leaks(samples: Sequence[Sample]) -> list[str]:
    """Name what there is more of at the end of a phase than ever in its first half."""
    middle = (samples[0].generations + samples[-1].generations) / 2
    found = []
    for name, figure in COUNTED.items():
        most = max(figure(each) for each in samples if each.generations <= middle)
        if (last := figure(samples[-1])) > most + SLACK:
            found.append(
                f"{samples[-1].phase}: {last:.0f} {name} at the end, at most {most:.0f} before"
            )
    return found
