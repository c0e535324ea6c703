"""The outcome of an overload for people, and what must be true of it."""

from collections.abc import Iterator, Sequence
from http import HTTPStatus
from typing import Final

from scripts.overload_drill.drill import BATCH, Outcome, Probe, times
from scripts.overload_drill.visit import SHARES, Visit

FACTOR: Final = 2
"""What counts as right of a Retry-After."""

RIGHT_PART: Final = 0.9
HEALTH_MILLISECONDS: Final = 50.0
LATE_SECONDS: Final = 1.0
"""An answer may come so long after the deadline: the way back, on a machine that is full."""


def problems(outcome: Outcome) -> Iterator[str]:
    """Find what must not happen on any machine."""
    if not outcome.visits or not any(visit.told for visit in outcome.visits):
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
    slow = _point(times(outcome.loaded), 0.99)
    if slow >= HEALTH_MILLISECONDS:
        yield f"/health took {slow:.0f} ms at its 99th percentile"


def promises(visits: Sequence[Visit], end: float) -> tuple[int, int]:
    """Return how many first Retry-After came due before ``end``, and how many were right.

    A client that came back, was refused again and left counts as not right.
    """
    tested = [visit for visit in visits if visit.due(end)]
    ratios = [visit.ratio for visit in tested]
    return len(tested), sum(r is not None and 1 / FACTOR <= r <= FACTOR for r in ratios)


def table(outcome: Outcome) -> str:
    """Return everything as Markdown."""
    return "\n\n".join((_answers(outcome), _promises(outcome), _health(outcome), _rest(outcome)))


def _answers(outcome: Outcome) -> str:
    lines = [
        "| Key | Came | Refused at first | Let in | 200 | 408 | Left | Most beyond deadline, s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for key in (*SHARES, ""):
        own = [visit for visit in outcome.visits if key in ("", visit.key)]
        done = [visit for visit in own if visit.admitted is not None]
        late = max((visit.taken - visit.deadline for visit in done), default=0.0)
        cells = (
            key or "all",
            len(own),
            sum(bool(visit.told) for visit in own),
            len(done),
            sum(visit.status == HTTPStatus.OK for visit in done),
            sum(visit.status == HTTPStatus.REQUEST_TIMEOUT for visit in done),
            sum(visit.left for visit in own),
            f"{late:.2f}" if late > 0 else "none",
        )
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def _promises(outcome: Outcome) -> str:
    lines = [
        "| Retry-After | Came due | Let in then | Right within 2 | p5 | Median | p95 | Most |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for key in (*SHARES, ""):
        own = [visit for visit in outcome.visits if key in ("", visit.key)]
        tested, right = promises(own, outcome.end)
        due = [visit for visit in own if visit.due(outcome.end)]
        ratios = sorted(ratio for visit in due if (ratio := visit.ratio) is not None)
        points = [f"{_point(ratios, part):.2f}" for part in (0.05, 0.5, 0.95, 1.0)]
        first = sum(visit.admitted is not None and len(visit.told) == 1 for visit in due)
        cells = (key or "all", tested, _part(first, tested), _part(right, tested), *points)
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def _health(outcome: Outcome) -> str:
    lines = ["| /health | Answers | p50, ms | p99, ms | Slowest, ms |", "|---|---|---|---|---|"]
    for name, probes in (("idle", outcome.idle), ("overload", outcome.loaded)):
        taken = times(probes)
        points = [f"{_point(taken, part):.1f}" for part in (0.5, 0.99, 1.0)]
        lines.append("| " + " | ".join((name, str(len(probes)), *points)) + " |")
    return "\n".join(lines)


def _rest(outcome: Outcome) -> str:
    resident = [size / 2**20 for size in outcome.resident] or [0.0]
    loaded = _under_load(outcome)
    waiting = f"{_mean([probe.waiting for probe in loaded]):.1f} of {outcome.places}"
    running = f"{_mean([probe.running for probe in loaded]):.1f} of {BATCH}"
    memory = f"{resident[0]:.0f} MiB before, {max(resident):.0f} at most, {resident[-1]:.0f} after"
    left = "{} and {}".format(*outcome.left_over)
    return "\n".join(
        (
            f"- Places taken on average: {waiting}; pictures in work: {running}.",
            f"- Memory of the process that speaks HTTP: {memory}.",
            f"- Waiting and running when everybody had an answer: {left}.",
        )
    )


def _under_load(outcome: Outcome) -> list[Probe]:
    """Return the probes after the queue was full for the first time and before it drained."""
    full = [probe.at for probe in outcome.loaded if probe.waiting >= outcome.places // 2]
    if not full:
        return []
    return [probe for probe in outcome.loaded if full[0] <= probe.at <= full[-1]]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _part(count: int, of: int) -> str:
    return f"{count} ({count / of:.0%})" if of else "none"


def _point(ordered: Sequence[float], part: float) -> float:
    return ordered[min(int(part * len(ordered)), len(ordered) - 1)] if ordered else 0.0
