"""What became of the scenes of a cluster."""

from collections.abc import Callable, Iterator
from statistics import median
from typing import Final

from tests.drills.chaos import checks
from tests.drills.common import report
from tests.drills.common.drill import Checks
from tests.drills.engines import outcome
from tests.drills.engines.outcome import Course, Seen, Strike


def images_are_right(seen: Seen) -> Iterator[str]:
    """Find images that are not what the order asks for, exactly or up to torch's rounding."""
    for course in seen.courses:
        check = outcome.images_are_right if course.exact else checks.images_are_right
        yield from (f"{course.name}: {problem}" for problem in check(course.ledger))


def changed(course: Course) -> list[str]:
    """Return the jobs that were over before a stopped process went on, and are not as they were."""
    return [
        job_id
        for strike in course.strikes
        for job_id, row in (strike.thawed or {}).items()
        if course.rows.get(job_id) != row
    ]


def thawed_change_nothing(seen: Seen) -> Iterator[str]:
    """Find rows that changed after a stopped process went on."""
    for course in seen.courses:
        yield from (f"{course.name}: the row of {job_id} changed" for job_id in changed(course))


CHECKS: Final[Checks[Seen]] = {
    **{
        name: check
        for name, check in outcome.CHECKS.items()
        if check not in (outcome.noticed, outcome.trusted_slowly)
    },
    outcome.IMAGES: images_are_right,
    "each job is delivered once": outcome.of_courses(checks.told_once),
    "a thawed process changes no row": thawed_change_nothing,
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
        "Delivered": lambda course: len({each.delivery for each in course.ledger.notices}),
        "Rows changed after the thaw": _changed,
        "Begun again": lambda course: _count(course, "job_requeued"),
        "Adopted": lambda course: _count(course, "job_adopted"),
        "Noticed after, s": lambda course: _told(course, _noticed),
        "Throughput back after, s": lambda course: _told(course, _back),
    }
    return report.grouped("Struck", columns, {each.name: each for each in seen.courses})


def _count(course: Course, event: str) -> int:
    return sum(line["event"] == event for line in course.log)


def _changed(course: Course) -> str:
    """Return how many rows of how many; nothing where no process went on."""
    known = sum(len(strike.thawed or ()) for strike in course.strikes)
    return f"{len(changed(course))} of {known}" if known else ""


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
