"""What the engines did, by the log and by the clients' ledger, and what must be true of it."""

import io
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from statistics import linear_regression, median
from typing import Any, Final

from PIL import Image

from scripts.written import table
from service.core.spec import GenerationSpec
from tests.drills.chaos import checks
from tests.drills.common import report
from tests.drills.common.drill import Checks
from tests.drills.common.ledger import Ledger
from tests.support import fake_worker

WINDOW_SECONDS: Final = 2.0
"""In so long a time the throughput must be what it was."""

SAME_RATE: Final = 0.9
SHARE: Final = 0.975
"""Of what so many engines would do alone, they do together at least: four do 3.9 times as much."""

BACK_SECONDS: Final = 10.0
"""From the restart of an engine to the throughput that there was before."""

IMAGES: Final = "images are exactly those that were asked for"
"""The name of a check."""

Log = Sequence[Mapping[str, Any]]
Row = tuple[Any, ...]
"""What the store says of a job that is over."""


@dataclass(kw_only=True)
class Strike:
    """What was done to one engine; moments are ``time.time`` seconds."""

    slot: str
    at: float
    before: float = 0.0
    """Images a second of all engines until then."""
    detected: float | None = None
    """When the service found that the process was gone."""
    opened: float | None = None
    """When the engine was taken out, as it ended again and again."""
    ready: float | None = None
    """When it could work again."""
    back: float | None = None
    """Seconds from there until the throughput was what it had been; None where it never was."""
    thawed: Mapping[str, Row] | None = None
    """Rows of the jobs that were over when a stopped process went on, by id."""


@dataclass(frozen=True, kw_only=True)
class Rate:
    """What some engines do together."""

    images: float
    """A second."""
    cpu: float
    """Seconds of the process that speaks HTTP, for each image."""
    ledger: Ledger


@dataclass(kw_only=True)
class Course:
    """What became of one scene."""

    name: str
    ends: bool
    """Whether a process ends in it."""
    ledger: Ledger
    exact: bool = True
    """Whether each image can be drawn here as the engine draws it."""
    strikes: list[Strike] = field(default_factory=list)
    log: Log = ()
    billed: int = 0
    """Images that the quota of the clients' key counts."""
    rows: Mapping[str, Row] = field(default_factory=dict)
    """All jobs that are over in the end, as the store has them, by id."""

    @property
    def most_alone(self) -> int:
        """Jobs that an engine got while it was not trusted: of those that were taken out."""
        return max((_tried(self.log, each) for each in self.strikes if each.opened), default=0)


@dataclass(kw_only=True)
class Seen:
    """All that the drill brings back."""

    rates: dict[int, Rate] = field(default_factory=dict)
    """By number of engines."""
    courses: list[Course] = field(default_factory=list)


def moment(line: Mapping[str, Any]) -> float:
    """Return when a log line was written."""
    return datetime.fromisoformat(line["timestamp"]).timestamp()


def first(log: Log, event: str, slot: str, after: float) -> float | None:
    """Return when something was first logged of an engine after a moment; None: never."""
    found = (
        moment(line) for line in list(log) if line["event"] == event and line.get("engine") == slot
    )
    return next((at for at in found if at >= after), None)


def ends(log: Log) -> list[float]:
    """Return when each image was made."""
    return [
        moment(line)
        for line in list(log)
        if line["event"] == "job_ended" and line["outcome"] == "succeeded"
    ]


def rate(ended: Sequence[float]) -> float:
    """Return the images a second, as a line through the moments of all of them; 0 without any."""
    if len(set(ended)) < 2:
        return 0.0
    return linear_regression(sorted(ended), range(len(ended))).slope


def back_after(ended: Sequence[float], strike: Strike) -> float | None:
    """Return the seconds from the restart until a window with as many images as before."""
    if strike.ready is None or not ended:
        return None
    wanted = SAME_RATE * strike.before * WINDOW_SECONDS
    begins = [strike.ready, *(at for at in ended if at >= strike.ready)]
    for begin in begins:
        if begin + WINDOW_SECONDS > ended[-1]:
            return None  # That window is not over.
        if sum(begin <= at < begin + WINDOW_SECONDS for at in ended) >= wanted:
            return begin - strike.ready
    return None


def _tried(log: Log, strike: Strike) -> int:
    """Return how many jobs an engine got between being taken out and being trusted again."""
    until = first(log, "circuit_closed", strike.slot, strike.opened or 0.0)
    return sum(
        (strike.opened or 0.0) <= moment(line) < (until or 0.0)
        for line in log
        if line["event"] == "job_started" and line.get("engine") == strike.slot
    )


def of_courses(check: Callable[[Ledger], Iterator[str]]) -> Callable[[Seen], Iterator[str]]:
    """Let a check look at each ledger."""

    def checked(seen: Seen) -> Iterator[str]:
        for course in seen.courses:
            for problem in check(course.ledger):
                yield f"{course.name}: {problem}"

    return checked


def finished(ledger: Ledger) -> Iterator[str]:
    """Find orders without an image: nobody cancelled them, and no engine failed for good."""
    for account in ledger.taken:
        if [end.state for end in account.ends[:1]] != ["succeeded"]:
            yield f"{account} ended as {account.ends}"


def images_are_right(ledger: Ledger) -> Iterator[str]:
    """Find images that are not exactly what the order asks for."""
    for account in ledger.taken:
        if account.png and _pixels(account.png) != _wanted(account.order.image):
            yield f"{account} has another image"


def _pixels(png: bytes) -> bytes:
    with Image.open(io.BytesIO(png)) as image:
        return image.convert("RGB").tobytes()


def _wanted(body: Mapping[str, Any]) -> bytes:
    return bytes(fake_worker.drawn(GenerationSpec(**body))[0].pixels)


def billed_once(seen: Seen) -> Iterator[str]:
    """Find scenes in which more or fewer images were billed than made."""
    for course in seen.courses:
        images = sum(each.state == "succeeded" for a in course.ledger.taken for each in a.ends[:1])
        if course.billed != images:
            yield f"{course.name}: {images} images, {course.billed} billed"


def noticed(seen: Seen) -> Iterator[str]:
    """Find engines that ended and were not seen to end, and those that were taken for dead."""
    for course in seen.courses:
        exits = sum(line["event"] == "engine_exited" for line in course.log)
        if course.ends and exits < len(course.strikes):
            yield f"{course.name}: {len(course.strikes)} engines ended, {exits} were missed"
        if not course.ends and exits:
            yield f"{course.name}: {exits} engines were taken for dead"


def redone(seen: Seen) -> Iterator[str]:
    """Find scenes whose strikes met no work: they prove nothing."""
    for course in seen.courses:
        again = sum(line["event"] == "job_requeued" for line in course.log)
        if course.ends and not again:
            yield f"{course.name}: no job began again"


def trusted_slowly(seen: Seen) -> Iterator[str]:
    """Find engines that were taken out and got several jobs before one had shown that they work."""
    for course in seen.courses:
        if course.most_alone > 1:
            yield f"{course.name}: {course.most_alone} jobs were given to an engine on trial"


def add_up(seen: Seen) -> Iterator[str]:
    """Find numbers of engines that do less than so many of one engine."""
    for count, found in seen.rates.items():
        times = found.images / seen.rates[1].images if seen.rates[1].images else 0.0
        if not times >= SHARE * count:
            yield f"{count} engines do {times:.2f} times as much as one"


def back_in_time(seen: Seen) -> Iterator[str]:
    """Find strikes after which the throughput was not back in time."""
    for course in seen.courses:
        for strike in course.strikes:
            if strike.back is None or strike.back > BACK_SECONDS:
                yield f"{course.name}: engine {strike.slot} after {strike.back} s"


CHECKS: Final[Checks[Seen]] = {
    "nothing is lost": of_courses(checks.lost),
    "every order has its image": of_courses(finished),
    "an end never changes": of_courses(checks.one_end),
    "one job for each Idempotency-Key": of_courses(checks.one_job_per_key),
    "every job was ordered": of_courses(checks.nothing_made_twice),
    "images are whole": of_courses(checks.images_are_whole),
    IMAGES: of_courses(images_are_right),
    "each image is billed once": billed_once,
    "attempts stay in their bound": of_courses(checks.attempts_are_counted),
    "engines that end are noticed, and no others": noticed,
    "an engine that was taken out is trusted with one job first": trusted_slowly,
}

GOALS: Final[Checks[Seen]] = {
    f"engines add up ({SHARE:.1%})": add_up,
    f"the throughput is back within {BACK_SECONDS:g} s of the restart": back_in_time,
    "strikes meet work": redone,
}


def described(seen: Seen) -> str:
    """Return all figures as Markdown."""
    alone = seen.rates[1].images
    rates = [
        (
            count,
            f"{found.images:.2f}",
            f"{found.images / alone:.2f}" if alone else "",
            f"{1000 * found.cpu:.1f}",
        )
        for count, found in seen.rates.items()
    ]
    head = ("Engines", "Images a second", "By those of one", "CPU ms of the service an image")
    columns: report.Columns = {
        "Struck": lambda course: len(course.strikes),
        "Orders": lambda course: len(course.ledger.taken),
        "Lost": lambda course: len(list(checks.lost(course.ledger))),
        "Without an image": lambda course: len(list(finished(course.ledger))),
        "Begun again": lambda course: _count(course.log)["job_requeued"],
        "Noticed after, s": lambda course: _told(course, _noticed_after),
        "Ready again after, s": lambda course: _told(course, _ready_after),
        "Throughput back after the restart, s": lambda course: _told(course, _back_after),
    }
    courses = report.grouped("An engine is", columns, {each.name: each for each in seen.courses})
    return f"{table(head, rates)}\n\n{courses}\n\n{_taken_out(seen)}"


def _taken_out(seen: Seen) -> str:
    """Return what is told of engines that were taken out."""
    rows = [
        (
            strike.slot,
            f"{strike.opened - strike.at:.1f}",
            f"{(strike.ready or strike.at) - strike.opened:.1f}",
            f"{_meanwhile(course, strike) / strike.before:.0%}",
        )
        for course in seen.courses
        for strike in course.strikes
        if strike.opened is not None and strike.before
    ]
    head = ("Engine", "Taken out after, s", "Trusted again after, s", "Throughput meanwhile")
    return table(head, rows)


def _meanwhile(course: Course, strike: Strike) -> float:
    """Return the images a second of the others while an engine was taken out."""
    begin, end = strike.opened or 0.0, strike.ready or 0.0
    return rate([at for at in ends(course.log) if begin <= at < end])


def _count(log: Log) -> Counter[str]:
    return Counter(line["event"] for line in log)


def _noticed_after(strike: Strike) -> float | None:
    return strike.detected and strike.detected - strike.at


def _ready_after(strike: Strike) -> float | None:
    return strike.ready and strike.ready - strike.at


def _back_after(strike: Strike) -> float | None:
    return strike.back


def _told(course: Course, of: Callable[[Strike], float | None]) -> str:
    """Return the median and the longest of a time."""
    found = [seconds for each in course.strikes if (seconds := of(each)) is not None]
    return f"{median(found):.1f}, {max(found):.1f}" if found else ""
