"""What a scene showed: images, loads, waits against their bound; and what must not happen."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, Final

from service.jobs.dispatch.residency import PATIENCE
from tests.drills.chaos import checks
from tests.drills.common import report
from tests.drills.common.drill import Checks
from tests.drills.common.ledger import Ledger
from tests.drills.switches.scenes import Scene

MAX_ATTEMPTS: Final = 5
MODELS: Final = 2
GB: Final = 1e9


@dataclass(kw_only=True)
class Course:
    """What became of one scene; times are seconds."""

    scene: Scene
    ledger: Ledger
    seconds: float = 0.0
    loads: list[float] = field(default_factory=list)
    """Of each load on demand, until the model could draw."""
    interrupted: int = 0
    """Loads that began and had no end."""
    waits: list[float] = field(default_factory=list)
    """Of each job from its acceptance to its first step."""
    runs: list[float] = field(default_factory=list)
    """Of each job from its first step to its end."""
    jobs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    peak: int = 0
    """Bytes: the largest address space of the last engine."""

    @property
    def bound(self) -> float:
        """The longest time from a job's fair turn until its model is loaded (decision 012)."""
        longest, running = max(self.loads, default=0.0), max(self.runs, default=0.0)
        return (MODELS - 1) * ((PATIENCE + 1) * longest + running) + longest


Seen = Sequence[Course]


def lost(seen: Seen) -> Iterator[str]:
    """Find orders that did not end with an image."""
    for course in seen:
        yield from checks.lost(course.ledger)
        for account in course.ledger.taken:
            if [end.state for end in account.ends[:1]] != ["succeeded"]:
                yield f"{course.scene.name}: {account} ended as {account.ends}"


def named(seen: Seen) -> Iterator[str]:
    """Find images that another model drew than the one that was asked for."""
    for course in seen:
        for account in course.ledger.taken:
            for job in account.ids:
                drawn = (course.jobs.get(job, {}).get("metadata") or {}).get("model")
                if drawn != account.order.body["model"]:
                    yield f"{course.scene.name}: {account} was drawn by {drawn}"


def bounded(seen: Seen) -> Iterator[str]:
    """Find waits beyond the bound, where nobody was killed."""
    for course in seen:
        longest = max(course.waits, default=0.0)
        if not course.scene.blows and longest > course.bound:
            name = course.scene.name
            yield f"{name}: a job waited {longest:.1f} s, {course.bound:.1f} s at most"


def switched(seen: Seen) -> Iterator[str]:
    """Find scenes in which both models stayed in memory."""
    for course in seen:
        if len(course.loads) < MODELS:
            yield f"{course.scene.name}: {len(course.loads)} loads: both models fit"


def struck(seen: Seen) -> Iterator[str]:
    """Find scenes whose kills did not fall into loads."""
    for course in seen:
        if course.interrupted < len(course.scene.blows):
            yield f"{course.scene.name}: {course.interrupted} loads met a kill"


CHECKS: Final[Checks[Seen]] = {
    "nothing is lost": lost,
    "one job for each Idempotency-Key": lambda seen: (
        each for course in seen for each in checks.one_job_per_key(course.ledger)
    ),
    "every job was ordered": lambda seen: (
        each for course in seen for each in checks.nothing_made_twice(course.ledger)
    ),
    "each image is of the model that was asked for": named,
    "no job waits longer than its bound": bounded,
    "only one model fits": switched,
    "kills fall into loads": struck,
}


def described(seen: Seen) -> str:
    """Return the figures of all scenes as Markdown."""
    columns: report.Columns = {
        "Images": lambda course: len(course.ledger.taken),
        "Lost": lambda course: len(list(lost([course]))),
        "Seconds": lambda course: f"{course.seconds:.0f}",
        "Loads": lambda course: len(course.loads),
        "Seconds of a load, mean and longest": lambda course: _both(course.loads),
        "Wait, mean and longest": lambda course: _both(course.waits),
        "Bound": lambda course: "" if course.scene.blows else f"{course.bound:.1f}",
        "Kills": lambda course: len(course.ledger.kills),
        "Loads that met one": lambda course: course.interrupted,
        "Most address space, GB": lambda course: f"{course.peak / GB:.1f}",
    }
    return report.grouped("Scene", columns, {course.scene.name: course for course in seen})


def _both(seconds: Sequence[float]) -> str:
    return f"{fmean(seconds):.1f}, {max(seconds):.1f}" if seconds else ""
