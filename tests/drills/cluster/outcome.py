"""What became of the scenes of a cluster."""

from collections.abc import Callable
from statistics import median
from typing import Final

from tests.drills.chaos import checks
from tests.drills.common import report
from tests.drills.common.drill import Checks
from tests.drills.engines import outcome
from tests.drills.engines.outcome import Course, Seen, Strike

CHECKS: Final[Checks[Seen]] = {
    name: check
    for name, check in outcome.CHECKS.items()
    if check not in (outcome.noticed, outcome.trusted_slowly)
}

GOALS: Final[Checks[Seen]] = {
    name: check for name, check in outcome.GOALS.items() if check is not outcome.add_up
}


def described(seen: Seen) -> str:
    """Return all figures as Markdown."""
    columns: report.Columns = {
        "Times": lambda course: len(course.strikes),
        "Orders": lambda course: len(course.ledger.taken),
        "Finished": lambda course: course.ledger.counts()["succeeded"],
        "Failed": lambda course: course.ledger.counts()["failed"],
        "Lost": lambda course: len(list(checks.lost(course.ledger))),
        "Billed": lambda course: course.billed,
        "Begun again": lambda course: _count(course, "job_requeued"),
        "Adopted": lambda course: _count(course, "job_adopted"),
        "Noticed after, s": lambda course: _told(course, _noticed),
        "Throughput back after, s": lambda course: _told(course, _back),
    }
    return report.grouped("Struck", columns, {each.name: each for each in seen.courses})


def _count(course: Course, event: str) -> int:
    return sum(line["event"] == event for line in course.log)


def _noticed(strike: Strike) -> float | None:
    return strike.detected and strike.detected - strike.at


def _back(strike: Strike) -> float | None:
    """Return the seconds from the strike itself."""
    if strike.back is None or strike.ready is None:
        return None
    return strike.ready + strike.back - strike.at


def _told(course: Course, of: Callable[[Strike], float | None]) -> str:
    """Return the median and the longest of a time; what never came is counted."""
    found = [seconds for each in course.strikes if (seconds := of(each)) is not None]
    missing = len(course.strikes) - len(found)
    shown = f"{median(found):.1f}, {max(found):.1f}" if found else ""
    return f"{shown} ({missing} not)" if found and missing else shown
