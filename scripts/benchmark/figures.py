"""What the answers of a server amount to: percentiles, throughput, ratios."""

import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scripts.benchmark.load import Measured
from scripts.benchmark.rows import Row


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Of the requests for one row, or for all of them; seconds."""

    asked: int
    answered: int
    """With a picture."""
    faults: Mapping[str, int]
    """Other answers, by status and code."""
    refusals: Mapping[str, int]
    """Answers that told to come again, and were heeded."""
    mean: float
    p50: float
    p95: float
    longest: float
    pictures_per_second: float
    steps_per_second: float
    """Denoising steps of single pictures."""

    def json(self) -> dict[str, Any]:
        """Return everything for a file."""
        return dict(vars(self))


def percentile(values: Iterable[float], share: float) -> float:
    """Return a percentile, interpolated between the two values beside it (as numpy does).

    Raises:
        ValueError: there are no values.

    """
    ordered = sorted(values)
    if not ordered:
        raise ValueError("there is nothing to take a percentile of")
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def figures(turns: Sequence[Measured], row: Row | None = None) -> Figures:
    """Put the turns of one server together; with a row, only the answers for it."""
    answers = [
        answer for turn in turns for answer in turn.answers if row is None or answer.row == row
    ]
    good = [answer for answer in answers if not answer.fault]
    taken = [answer.seconds for answer in good] or [0.0]
    seconds = sum(turn.seconds for turn in turns) or float("inf")
    return Figures(
        asked=len(answers),
        answered=len(good),
        faults=dict(Counter(answer.fault for answer in answers if answer.fault)),
        refusals=dict(sum((turn.refusals for turn in turns), Counter())),
        mean=statistics.fmean(taken),
        p50=percentile(taken, 0.5),
        p95=percentile(taken, 0.95),
        longest=max(taken),
        pictures_per_second=len(good) / seconds,
        steps_per_second=sum(answer.row.steps for answer in good) / seconds,
    )


Figure = Callable[[Figures], float]


def ratio(
    ours: Sequence[Measured], theirs: Sequence[Measured], figure: Figure, row: Row | None = None
) -> float | None:
    """Return the median over the rounds of our figure divided by theirs; None without one.

    Both had their turn in each round, one after the other: what disturbed the machine
    disturbed both.
    """
    found = []
    for our_turn, their_turn in zip(ours, theirs, strict=True):
        mine, other = (figures([turn], row) for turn in (our_turn, their_turn))
        if mine.answered and other.answered:
            found.append(figure(mine) / figure(other))
    return statistics.median(found) if found else None
