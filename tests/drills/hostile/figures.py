"""What a drill has seen, what it has to be like, and how it is told."""

import math
import platform
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from scripts.written import table
from tests.drills.common.drill import Limit
from tests.drills.common.report import MIB, percentile

LATE_SECONDS: Final = 1.0
BACK_SECONDS: Final = 60.0
SLACK_BYTES: Final = 16 * MIB
"""Memory is back when it is within this of what it was before the attack."""

CPUINFO: Final = Path("/proc/cpuinfo")


@dataclass(kw_only=True)
class Side:
    """One service's windows: those with the attack, or those with the busy loop in its place."""

    seconds: float = 0.0
    images: list[float] = field(default_factory=list)
    """Seconds of each ``/generate``; infinite where no image came."""
    probes: list[float] = field(default_factory=list)
    """Seconds of each ``/health/live``; infinite where no 200 came."""
    refused: Counter[str] = field(default_factory=Counter)
    """What came in place of images, jobs and answers to probes."""
    webhooks: list[float] = field(default_factory=list)
    """Seconds from the end of a job until its webhook came; infinite where none did."""
    accepted: list[str] = field(default_factory=list)
    """Ids of the other key's jobs that were taken."""
    cpu: float = 0.0  # CPU seconds of the attacker, or of the busy loop.

    def json(self) -> dict[str, Any]:
        """Return the figures that a program decides by."""
        return {
            **{name: getattr(self, name) for name in ("seconds", "cpu", "refused")},
            **{name: len(getattr(self, name)) for name in ("images", "probes", "webhooks")},
            "missing_images": missing(self.images),
            "missing_probes": missing(self.probes),
            "late_webhooks": late(self.webhooks),
            "p50": percentile(self.images, 0.5),
            "p95": percentile(self.images, 0.95),
            "live_p99": percentile(self.probes, 0.99),
        }


@dataclass(kw_only=True)
class Memory:
    """Resident bytes of the attacked service's process."""

    before: int = 0
    most: int = 0
    after: int = 0
    back: float | None = None
    """Seconds after the attack until it was back; None: not within a minute."""


@dataclass(kw_only=True)
class Round:
    """One attack, or all of them together."""

    name: str
    attack: Side = field(default_factory=Side)
    control: Side = field(default_factory=Side)
    memory: Memory = field(default_factory=Memory)
    taken: int = 0  # Jobs that were accepted, the attacker's too.
    lost: list[str] = field(default_factory=list)
    """What became of those of them that did not end as they must."""
    tallies: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """What each attack was answered, and how often."""

    @property
    def ratio(self) -> float:
        """The attacked ``/generate`` compared with the other one, at the 95th percentile."""
        return ratio(percentile(self.attack.images, 0.95), percentile(self.control.images, 0.95))

    def json(self) -> dict[str, Any]:
        """Return the figures that a program decides by."""
        sides = {"attack": self.attack.json(), "control": self.control.json()}
        return {**asdict(self), **sides, "ratio": self.ratio, "missed": list(missed(self))}


def ratio(attacked: float, control: float) -> float:
    """Return how many times as long; infinite where nothing came in time under the attack."""
    return attacked / control if math.isfinite(control) else math.nan


def missing(values: Sequence[float]) -> int:
    """Return how many did not come."""
    return sum(math.isinf(value) for value in values)


def late(values: Sequence[float]) -> int:
    """Return how many webhooks came late, or not."""
    return sum(value > LATE_SECONDS for value in values)


def rate(cpu: float, wall: float) -> float:
    """Return the pace at which a busy loop takes as much CPU as an attack, within one core."""
    return min(cpu / wall, 1.0) if wall > 0 else 0.0


def is_back(memory: Memory, resident: int) -> bool:
    """Return whether this much memory counts as what it was before."""
    return resident <= memory.before + SLACK_BYTES


def _live(seen: Round) -> float:
    return 1000 * percentile(seen.attack.probes, 0.99)


def _grown(seen: Round) -> float:
    """Return the MiB above what there was before, a minute after the attack; 0 if it is back."""
    return (seen.memory.after - seen.memory.before) / MIB if seen.memory.back is None else 0.0


LIMITS: Final[Sequence[Limit[Round]]] = (
    Limit("`/generate` p95, times the control's", 1.2, lambda seen: seen.ratio),
    Limit("`/health/live` p99, ms", 50, _live),
    Limit("images that did not come", 0, lambda seen: missing(seen.attack.images)),
    Limit("probes that did not come", 0, lambda seen: missing(seen.attack.probes)),
    Limit("accepted jobs lost", 0, lambda seen: len(seen.lost)),
    Limit("webhooks later than 1 s after their jobs", 0, lambda seen: late(seen.attack.webhooks)),
    Limit("MiB more, 60 s after the attack", SLACK_BYTES / MIB, _grown),
)


def missed(seen: Round) -> Iterator[str]:
    """Yield every goal that was missed, with the figure; nothing seen is a miss, too."""
    return (problem for limit in LIMITS for problem in limit(seen))


def described(rounds: Sequence[Round]) -> str:
    """Return what was measured, what was missed, and what the attackers were answered."""
    rows = [_row(seen, side) for seen in rounds for side in (seen.attack, seen.control)]
    goals = [f"- {seen.name}: {goal}." for seen in rounds for goal in missed(seen)]
    return "\n\n".join(
        (
            table(HEAD, rows),
            "\n".join(goals) or "Every goal was met.",
            table(COSTS, [_cost(seen) for seen in rounds]),
        )
    )


HEAD: Final = (
    *("Attack", "`/generate` p50, s", "p95, s", "Times the control's", "`/health/live` p99, ms"),
    *("Missing images", "Missing probes", "Late webhooks", "Jobs lost"),
    *("MiB before, most, after", "Goals"),
)
COSTS: Final = ("Attack", "Attacker, cores", "Busy loop, cores", "Answers to the attacker")


def _row(seen: Round, side: Side) -> list[str]:
    memory, failed = seen.memory, len(list(missed(seen)))
    sizes = [f"{size / MIB:.0f}" for size in (memory.before, memory.most, memory.after)]
    row = [
        seen.name,
        _number(percentile(side.images, 0.5)),
        _number(percentile(side.images, 0.95)),
        _number(seen.ratio),
        _number(1000 * percentile(side.probes, 0.99), 1),
        f"{missing(side.images)} of {len(side.images)}",
        f"{missing(side.probes)} of {len(side.probes)}",
        f"{late(side.webhooks)} of {len(side.webhooks)}",
        f"{len(seen.lost)} of {seen.taken}",
        ", ".join(sizes),
        f"{failed} missed" if failed else "ok",
    ]
    if side is seen.control:  # Only the attacked service has the others.
        row[0], row[3], row[8:] = "control", "", ["", "", ""]
    return row


def _number(value: float, digits: int = 2) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else "never"


def _cost(seen: Round) -> tuple[str, ...]:
    answers = "; ".join(
        f"{name}: " + ", ".join(f"{answer} {count}" for answer, count in sorted(tally.items()))
        for name, tally in seen.tallies.items()
    )
    cores = (f"{side.cpu / side.seconds:.2f}" for side in (seen.attack, seen.control))
    return seen.name, *cores, answers


def cpu_name(information: Path = CPUINFO) -> str:
    """Return what the CPU calls itself."""
    with suppress(OSError):
        found = re.search(r"^model name\s*: (.+)$", information.read_text(), re.MULTILINE)
        if found:
            return found[1].strip()
    return platform.processor() or platform.machine()
