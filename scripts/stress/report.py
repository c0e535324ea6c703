"""The outcome of the test: for people, for the documentation, and as data."""

import argparse
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from scripts.stress.course import Course
from scripts.stress.meter import Sample
from scripts.stress.verdict import COUNTED, Judged, judge, leaks

MIB: Final = 2**20
SHOWN: Final = 10
"""Problems that are named; a service that is down would name hundreds."""

Found = Mapping[tuple[str, frozenset[tuple[str, str]]], float]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """All that was measured, and what is thought of it."""

    samples: Sequence[Sample]
    judged: Sequence[Judged]
    problems: Sequence[str]
    done: Counter[tuple[str, str]]
    ends: Mapping[str, float]
    """Jobs by how they ended, as the service counts them."""
    wasted: Mapping[str, float]
    """Seconds of the device by what became of them."""
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether memory is flat and nothing else went wrong."""
        return not self.problems and all(each.flat for each in self.judged if each.judged)

    def json(self) -> dict[str, Any]:
        """Return it as data."""
        return {
            "passed": self.passed,
            "judged": [{**asdict(each), "flat": each.flat} for each in self.judged],
            "problems": list(self.problems),
            "done": {f"{phase}: {name}": count for (phase, name), count in self.done.items()},
            "ends": dict(self.ends),
            "device_seconds": dict(self.wasted),
            "seconds": self.seconds,
            "samples": [each.json() for each in self.samples],
        }


def outcome(course: Course, metrics: Found, limit: float) -> Outcome:
    """Judge what a course has measured; ``limit`` is in bytes per generation."""
    samples = course.meter.samples
    problems = list(course.problems)
    judged: list[Judged] = []
    if course.short:
        problems.append("time ran out before all generations were made")
    for phase in dict.fromkeys(each.phase for each in samples):
        rests = [each for each in samples if each.phase == phase and each.resting]
        try:
            judged += judge(rests, limit)
        except ValueError as error:
            problems.append(f"{phase}: {error}")
        problems += leaks(rests)
    restarts = sum(v for (name, _), v in metrics.items() if name == "sd_engine_restarts_total")
    if restarts:
        problems.append(f"the engine was started again {restarts:.0f} times")
    return Outcome(
        samples=samples,
        judged=judged,
        problems=problems,
        done=course.done,
        ends=_by(metrics, "sd_jobs_total", "outcome"),
        wasted=_by(metrics, "sd_gpu_seconds_total", "use"),
        seconds=samples[-1].seconds,
    )


def _by(metrics: Found, name: str, label: str) -> dict[str, float]:
    found: Counter[str] = Counter()
    for (each, labels), value in metrics.items():
        if each == name and value:
            found[dict(labels)[label]] += value  # type: ignore[assignment]
    return dict(found)


def text(result: Outcome) -> str:
    """Return the outcome for a terminal."""
    lines = [_memory(result), "", _counts(result), ""]
    lines += [f"{name}: {count}" for name, count in _said(result).items()]
    lines += [f"FAILED: {problem}" for problem in result.problems[:SHOWN]]
    if (more := len(result.problems) - SHOWN) > 0:
        lines.append(f"FAILED: {more} more")
    lines.append("FLAT" if result.passed else "NOT FLAT, or something went wrong")
    return "\n".join(lines)


def _memory(result: Outcome) -> str:
    rows: list[tuple[str, ...]] = [
        ("Phase", "Memory of", "Start", "Warm", "End", "Per 100", "95 %", "")
    ]
    for each in result.judged:
        slope = each.slope
        verdict = ("flat" if each.flat else "NOT FLAT") if each.judged else "not judged"
        rows.append(
            (
                each.phase,
                each.name,
                *(f"{value / MIB:.1f}" for value in (each.start, each.warm, each.end)),
                f"{slope.middle * 100 / MIB:+.2f}",
                f"{slope.low * 100 / MIB:+.2f} to {slope.high * 100 / MIB:+.2f}",
                verdict,
            )
        )
    return table(rows)


def _counts(result: Outcome) -> str:
    rows: list[tuple[str, ...]] = [("Phase", "Number of", "Start", "Most", "End")]
    for phase in dict.fromkeys(each.phase for each in result.samples):
        rests = [each for each in result.samples if each.phase == phase and each.resting]
        for name, figure in COUNTED.items():
            values = [figure(each) for each in rests]
            row = (values[0], max(values), values[-1])
            rows.append((phase, name, *(f"{value:.0f}" for value in row)))
    return table(rows)


def _said(result: Outcome) -> dict[str, str]:
    last = result.samples[-1]
    seconds = {use: round(value, 1) for use, value in result.wasted.items()}
    return {
        "Generations": f"{last.generations} in {result.seconds:.0f} s",
        "Jobs by their end": _listed(result.ends),
        "Seconds of the device": _listed(seconds),
        "Job store": f"{last.store_bytes / MIB:.1f} MiB",
        "Kept pictures": f"{last.results_bytes / MIB:.1f} MiB",
    }


def _listed(counts: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {count:g}" for name, count in sorted(counts.items()))


def page(result: Outcome, given: argparse.Namespace) -> str:
    """Return the page of the documentation."""
    done = Counter[str]()
    for (phase, name), count in result.done.items():
        done[f"| {phase} | {name} | "] = count
    sizes = ", ".join(f"{width}x{height}" for width, height in given.sizes)
    return PAGE.format(
        generations=given.generations,
        clients=given.clients,
        steps=given.steps,
        threads=given.threads,
        rounds=given.rounds,
        limit=given.limit,
        sizes=sizes,
        python=platform.python_version(),
        memory=_memory(result),
        counts=_counts(result),
        said="\n".join(f"- {name}: {value}." for name, value in _said(result).items()),
        done="\n".join(f"{row}{count} |" for row, count in sorted(done.items())),
        verdict="Flat; nothing leaks." if result.passed else "NOT FLAT, or something went wrong.",
    )


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table of a head and its rows."""
    lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    widths = [max(len(line[column]) for line in lines) for column in range(len(rows[0]))]
    return "\n".join(
        "| "
        + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        + " |"
        for line in lines
    )


PAGE: Final = """\
# Memory under stress

`python -m scripts.memory_stress_test --write` wrote this page: the real service with the demo
model on CPU cores, Python {python}, {generations} generations in each phase by {clients} clients
at a time, 1 to {steps} steps, {threads} threads, sizes {sizes}.

![Memory of both processes over all generations](memory-stress.png)

**{verdict}**

{said}

## Memory

MiB, measured after each of {rounds} rounds, when nothing is in work. *Warm* is after a quarter of
the phase; the slope per 100 generations is Theil and Sen's from there on, with its 95 % interval.
*Flat* means that the upper end of the interval is at most {limit:g} KiB per generation; the latents
of one picture of 512x512 are 64. *Anonymous* is what a process made itself, swapped or not: a leak
can be nowhere else. RSS has also the pages of libraries that were used so far. PSS divides those
among the processes of the machine, and is shown only.

{memory}

## Files, sockets, threads

At rest. More at the end than ever in the first half, by more than two, would be a leak; so would be
a job, a waiter or an event stream that is still in work a minute after the last client has gone.

{counts}

## What keeps it flat

Nothing that the processes use grows: after a warm-up the engine's heap held 232 to 236 MiB over 160
generations, while the holes in it grew from 136 to 269. So memory that is free has to go back to
the system (`service/heap.py`): the engine trims its heap when it has been idle for a second, and
every 30 s while it works; the HTTP process every 30 s, and its threads share two heaps. Before,
the engine grew by 56 MiB in 100 generations, and held 642 MiB after 240 of them. Trimming takes
4 to 14 ms. After every picture it would take 9 % more CPU time; mappings of their own for all
blocks above 1 MiB would take 8 % (medians of three, in turns in one run).

## What was done

| Phase | What | Times |
|---|---|---|
{done}
"""
