"""The outcome of an overload for people, and what must be true of it."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from statistics import fmean
from typing import Final, NamedTuple

from tests.drills.common.ledger import Visit
from tests.drills.common.report import MIB, Columns, grouped, percentile
from tests.drills.overload.crowd import SHARES
from tests.drills.overload.health import INTERVAL_SECONDS

BATCH: Final = 3
FACTOR: Final = 2  # What counts as right of a Retry-After.
RIGHT_PART: Final = 0.9
HEALTH_MILLISECONDS: Final = 50.0
LATE_SECONDS: Final = 1.0
"""An answer may come so long after the deadline: the way back, on a machine that is full."""

Visits = Sequence[Visit]


class Probe(NamedTuple):
    """One answer of /health."""

    at: float
    milliseconds: float
    waiting: int
    running: int


@dataclass(kw_only=True)
class Outcome:
    capacity: float = 0.0  # Images a second.
    places: int = 64
    visits: list[Visit] = field(default_factory=list)
    end: float = 0.0  # When the last client came, as ``time.monotonic``.
    idle: list[Probe] = field(default_factory=list)
    loaded: list[Probe] = field(default_factory=list)
    resident: list[int] = field(default_factory=list)
    """Bytes of the process that speaks HTTP, twice a second."""
    left_over: tuple[int, int] = (0, 0)  # Jobs waiting and running when everybody had an answer.


def times(probes: Sequence[Probe]) -> list[float]:
    """Return the milliseconds of all answers, sorted.

    A question that came late because the one before it was slow would have waited, too, and
    counts with the rest of that wait.
    """
    interval = 1000 * INTERVAL_SECONDS
    return sorted(
        probe.milliseconds - interval * late
        for probe in probes
        for late in range(math.ceil(probe.milliseconds / interval))
    )


def problems(outcome: Outcome) -> Iterator[str]:
    """Find what must not happen on any machine."""
    if not any(visit.told for visit in outcome.visits):
        yield "nobody was refused: that was no overload"
    for visit in outcome.visits:
        if visit.flaw:
            yield f"a client of {visit.key} got {visit.flaw}"
        elif visit.admitted is None and not visit.left:
            yield f"a client of {visit.key} never got an answer"
        elif visit.admitted is not None and visit.taken > visit.deadline + LATE_SECONDS:
            yield f"{visit.status} came after {visit.taken:.1f} s of {visit.deadline:g}"
    if any(outcome.left_over):
        yield f"waiting and running after the last answer: {outcome.left_over}"


def missed(outcome: Outcome) -> Iterator[str]:
    """Find goals that were missed, which may be the machine's fault."""
    tested, right = promises(outcome.visits, outcome.end)
    if right < RIGHT_PART * tested:
        yield f"{right} of {tested} Retry-After were right within a factor of {FACTOR}"
    slow = percentile(times(outcome.loaded), 0.99)
    if slow >= HEALTH_MILLISECONDS:
        yield f"/health took {slow:.0f} ms at its 99th percentile"


def promises(visits: Visits, end: float) -> tuple[int, int]:
    """Return how many first Retry-After came due before ``end``, and how many were right.

    A client that came back, was refused again and left counts as not right.
    """
    ratios = [visit.ratio for visit in visits if visit.due(end)]
    return len(ratios), sum(r is not None and 1 / FACTOR <= r <= FACTOR for r in ratios)


def _let_in(visits: Visits) -> list[Visit]:
    return [visit for visit in visits if visit.admitted is not None]


def _ended(visits: Visits, status: HTTPStatus) -> int:
    return sum(visit.status == status for visit in _let_in(visits))


def _latest(visits: Visits) -> str:
    late = max((visit.taken - visit.deadline for visit in _let_in(visits)), default=0.0)
    return f"{late:.2f}" if late > 0 else "none"


def _ratios(visits: Visits) -> list[float]:
    return [visit.ratio for visit in visits if visit.ratio is not None]


def _part(visits: Visits, count: int) -> str:
    return f"{count} ({count / len(visits):.0%})" if visits else "none"


ANSWERS: Final[Columns] = {
    "Came": len,
    "Refused at first": lambda own: sum(bool(visit.told) for visit in own),
    "Let in": lambda own: len(_let_in(own)),
    "200": lambda own: _ended(own, HTTPStatus.OK),
    "408": lambda own: _ended(own, HTTPStatus.REQUEST_TIMEOUT),
    "Left": lambda own: sum(visit.left for visit in own),
    "Most beyond deadline, s": _latest,
}
HEALTH: Final[Columns] = {
    "Answers": len,
    "p50, ms": lambda own: f"{percentile(times(own), 0.5):.1f}",
    "p99, ms": lambda own: f"{percentile(times(own), 0.99):.1f}",
    "Slowest, ms": lambda own: f"{percentile(times(own), 1.0):.1f}",
}


def described(outcome: Outcome) -> str:
    """Return everything as Markdown."""
    keys = {key: [v for v in outcome.visits if v.key == key] for key in SHARES}
    keys["all"] = outcome.visits
    due = {key: [v for v in visits if v.due(outcome.end)] for key, visits in keys.items()}
    kept: Columns = {
        "Came due": len,
        "Let in then": lambda own: _part(own, sum(len(v.told) == 1 for v in _let_in(own))),
        "Right within 2": lambda own: _part(own, promises(own, outcome.end)[1]),
        "p5": lambda own: f"{percentile(_ratios(own), 0.05):.2f}",
        "Median": lambda own: f"{percentile(_ratios(own), 0.5):.2f}",
        "p95": lambda own: f"{percentile(_ratios(own), 0.95):.2f}",
        "Most": lambda own: f"{percentile(_ratios(own), 1.0):.2f}",
    }
    return "\n\n".join(
        (
            grouped("Key", ANSWERS, keys),
            grouped("Retry-After", kept, due),
            grouped("/health", HEALTH, {"idle": outcome.idle, "overload": outcome.loaded}),
            _rest(outcome),
        )
    )


def _rest(outcome: Outcome) -> str:
    resident = [size / MIB for size in outcome.resident] or [0.0]
    # From when the queue was full for the first time until it drained.
    full = [probe.at for probe in outcome.loaded if probe.waiting >= outcome.places // 2] or [0.0]
    loaded = [probe for probe in outcome.loaded if full[0] <= probe.at <= full[-1]]
    waiting = f"{fmean([probe.waiting for probe in loaded] or [0]):.1f} of {outcome.places}"
    running = f"{fmean([probe.running for probe in loaded] or [0]):.1f} of {BATCH}"
    memory = f"{resident[0]:.0f} MiB before, {max(resident):.0f} at most, {resident[-1]:.0f} after"
    left = "{} and {}".format(*outcome.left_over)
    return f"""\
- Places taken on average: {waiting}; images in work: {running}.
- Memory of the process that speaks HTTP: {memory}.
- Waiting and running when everybody had an answer: {left}."""
