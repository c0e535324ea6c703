"""The outcome of the test: for people, for the documentation, and as data."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from scripts.written import table
from tests.drills.common.report import MIB
from tests.drills.stress.meter import Sample
from tests.drills.stress.verdict import COUNTED, Judged

MEMORY_HEAD: Final = ("Phase", "Memory of", "Start", "Warm", "End", "Per 100", "95 %", "")


@dataclass(kw_only=True)
class Outcome:
    """All that was measured, and what is thought of it."""

    samples: list[Sample]
    judged: list[Judged] = field(default_factory=list)
    problems: list[str]
    done: Counter[tuple[str, str]]  # How often each thing was done, by phase and name.
    ends: Mapping[str, float]  # Jobs by how they ended, as the service counts them.
    wasted: Mapping[str, float]  # Seconds of the device by what became of them.

    @property
    def phases(self) -> list[str]:
        return list(dict.fromkeys(each.phase for each in self.samples))

    def rests(self, phase: str) -> list[Sample]:
        """Return what was measured in a phase while nothing was in work."""
        return [each for each in self.samples if each.phase == phase and each.resting]

    def growing(self) -> Iterator[str]:
        """Find memory of which it is not certain that it is flat."""
        for each in self.judged:
            if each.judged and not each.flat:
                yield f"{each.phase}: {each.name} is not flat"

    @property
    def passed(self) -> bool:
        """Whether memory is flat and nothing else went wrong."""
        return not self.problems and not any(self.growing())

    def json(self) -> dict[str, Any]:
        return {
            **asdict(self),
            "passed": self.passed,
            "judged": [{**asdict(each), "flat": each.flat} for each in self.judged],
            "done": {f"{phase}: {name}": count for (phase, name), count in self.done.items()},
        }


def described(outcome: Outcome) -> str:
    """Return everything as Markdown."""
    last, seconds = outcome.samples[-1], {use: round(v, 1) for use, v in outcome.wasted.items()}
    done = sorted((*key, count) for key, count in outcome.done.items())
    said = f"""\
- Generations: {last.generations} in {last.seconds:.0f} s.
- Jobs by their end: {_listed(outcome.ends)}.
- Seconds of the device: {_listed(seconds)}.
- Job store: {last.store_bytes / MIB:.1f} MiB.
- Kept images: {last.results_bytes / MIB:.1f} MiB."""
    return "\n\n".join(
        (
            said,
            table(MEMORY_HEAD, [_memory(each) for each in outcome.judged]),
            table(("Phase", "Number of", "Start", "Most", "End"), list(_counts(outcome))),
            table(("Phase", "What", "Times"), done),
        )
    )


def _memory(each: Judged) -> tuple[str, ...]:
    slopes = (each.slope.low, each.slope.middle, each.slope.high)
    low, middle, high = (f"{slope * 100 / MIB:+.2f}" for slope in slopes)
    sizes = [f"{value / MIB:.1f}" for value in (each.start, each.warm, each.end)]
    verdict = ("flat" if each.flat else "NOT FLAT") if each.judged else "not judged"
    return each.phase, each.name, *sizes, middle, f"{low} to {high}", verdict


def _counts(outcome: Outcome) -> Iterator[tuple[object, ...]]:
    for phase in outcome.phases:
        for name, figure in COUNTED.items():
            values = [figure(each) for each in outcome.rests(phase)]
            yield phase, name, values[0], max(values), values[-1]


def _listed(counts: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {count:g}" for name, count in sorted(counts.items()))
