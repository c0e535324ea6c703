"""The engine and the plain diffusers pipeline: rows of a table, measured in turns."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final

from scripts.benchmark.rows import Row, rows
from scripts.cards.images import Difference, difference
from scripts.cards.measure import ENGINE, PIPELINE, Measured, Order
from scripts.cards.measure import run as measure
from scripts.cards.suite.batches import gigabytes
from scripts.cards.suite.parts import Report, Task, Tell
from service.gpu.card import GIB

CONTENDERS: Final = (ENGINE, PIPELINE)
ROWS: Final = {"gpu": rows("512x512/20,768x512/25,768x768/30"), "cpu": rows("256x256/2")}
ROUNDS: Final = {"gpu": 2, "cpu": 1}
"""Turns of each contender with each row."""

IMAGES: Final = {"gpu": 3, "cpu": 2}
"""Counted in a turn."""

OVERTIME: Final = 0.15
"""Share of the time after which no turn begins: one that hangs is ended within it."""


@dataclass(kw_only=True)
class Duel:
    """What both made of a row, in every turn that both had."""

    row: Row
    folders: Mapping[str, Path]
    """Where the images of each go."""
    runs: dict[str, list[Measured]] = field(
        default_factory=lambda: {contender: [] for contender in CONTENDERS}
    )
    gap: Difference | None = None
    """Between the images of both, of the same seeds."""

    def failure(self, contender: str) -> str:
        """Return why a contender has no figure; empty if it has."""
        runs = self.runs[contender]
        return next((each.failure for each in runs if each.failure), "" if runs else "not run")

    def seconds(self, contender: str) -> float | None:
        """Return the median over all images of all turns."""
        if self.failure(contender):
            return None
        return median(one for each in self.runs[contender] for one in each.seconds)

    def most(self, contender: str, name: str) -> str:
        """Return the highest of a figure over all turns, in GB."""
        return gigabytes(max((getattr(each, name) for each in self.runs[contender]), default=0))

    @property
    def ratio(self) -> float | None:
        """Return the engine's seconds by the pipeline's."""
        ours, theirs = (self.seconds(contender) for contender in CONTENDERS)
        return ours / theirs if ours and theirs else None

    def json(self) -> dict[str, Any]:
        """Return it as the file of results keeps it."""
        return {
            "row": asdict(self.row),
            "ratio": self.ratio,
            "gap": self.gap and asdict(self.gap),
            **{name: [asdict(each) for each in runs] for name, runs in self.runs.items()},
        }

    def cells(self, *, gpu: bool) -> Sequence[str]:
        """Return its line of the table."""
        cells = [self.row.title, str(min(len(self.runs[name]) for name in CONTENDERS))]
        for contender in CONTENDERS:
            seconds = self.seconds(contender)
            cells.append(self.failure(contender) if seconds is None else f"{seconds:.3f}")
        cells.append("-" if self.ratio is None else f"{self.ratio:.2f}")
        cells += [self.most(name, "process" if gpu else "host") for name in CONTENDERS]
        for more in ("reserved", "allocated") if gpu else ():
            cells.append(" and ".join(self.most(name, more) for name in CONTENDERS))
        return cells + (
            ["-", "-"] if self.gap is None else [self.gap.share, f"{self.gap.mean:.2f}"]
        )


def run(task: Task, tell: Tell) -> None:
    """Measure the rows, and tell the table after each turn."""
    ends = time.monotonic() + task.seconds
    duels = [
        Duel(
            row=row,
            folders={who: task.images(f"{row.name.replace('/', '-')}-{who}") for who in CONTENDERS},
        )
        for row in ROWS[task.kind]
    ]
    limit = {} if task.on_cpu else {"VRAM_LIMIT_GB": f"{task.vram:g}", "PROFILE": "6gb"}

    def ran(duel: Duel, contender: str, measured: Measured) -> None:
        said = measured.failure or f"{median(measured.seconds):.2f} s an image"
        print(f"{duel.row.title}, {contender}: {said}")
        tell(report(duels, task))

    turns(duels, task.settings(**limit), kind=task.kind, ends=ends, ran=ran)
    tell(report(duels, task))


def turns(
    duels: Sequence[Duel],
    settings: Mapping[str, str],
    *,
    kind: str,
    ends: float,
    ran: Callable[[Duel, str, Measured], object],
) -> None:
    """Measure each row by each contender, again and again; ``ran`` hears of each turn.

    Never are two of them there at once: a card of 6 GB has no room for two models, and what
    one holds would bind the other. Each turn has a process of its own, so that its peak is its
    own, too. All rows have their first turn before any has its second. No turn begins in the
    last part of the time before ``ends`` (``time.monotonic``), and none that takes too long by
    the one before: one that is cut off would be counted as a failure.
    """
    last = ends - OVERTIME * (ends - time.monotonic())
    took: dict[tuple[Row, str], float] = {}
    for number in range(ROUNDS[kind]):
        for duel in duels:
            # Who begins alternates, so that a card that warms up is warm for both.
            for contender in CONTENDERS if number % 2 == 0 else CONTENDERS[::-1]:
                begins = time.monotonic()
                late = begins + took.get((duel.row, contender), 0.0) > ends
                if late or begins >= last or duel.failure(contender) not in {"", "not run"}:
                    continue
                folder = str(duel.folders[contender])
                order = Order(contender=contender, row=duel.row, rounds=IMAGES[kind], folder=folder)
                measured = measure(order, settings, seconds=ends - begins)
                took[duel.row, contender] = time.monotonic() - begins
                duel.runs[contender].append(measured)
                duel.gap = difference(*duel.folders.values())
                ran(duel, contender, measured)


def report(duels: Sequence[Duel], task: Task) -> Report:
    """Return what is known of the rows."""
    missing = [
        f"{duel.row.title}, {name}: {reason}"
        for duel in duels
        for name in CONTENDERS
        if (reason := duel.failure(name))
    ]
    return Report(
        table=table(duels, gpu=not task.on_cpu),
        notes=notes(duels, 0 if task.on_cpu else task.vram),
        figures={"rows": [duel.json() for duel in duels]},
        failure="; ".join(missing),
    )


def table(duels: Sequence[Duel], *, gpu: bool) -> list[Sequence[str]]:
    """Return the rows under their head."""
    memory = "VRAM of the process" if gpu else "host memory"
    head = [
        *("image", "turns", "engine, s", "pipeline, s", "ratio"),
        *(f"engine, {memory}, GB", f"pipeline, {memory}, GB"),
        *(("torch held, both, GB", "torch gave out, both, GB") if gpu else ()),
        *("values within 1", "mean difference, grey levels"),
    ]
    return [head, *(duel.cells(gpu=gpu) for duel in duels)]


def notes(duels: Sequence[Duel], cap: float) -> list[str]:
    """Return what a reader must know besides the figures."""
    found = []
    every = [(duel, each) for duel in duels for runs in duel.runs.values() for each in runs]
    for duel, measured in every:
        if cap and measured.process > cap * GIB:
            found.append(
                f"{duel.row.title}: a process took {gigabytes(measured.process)} GB, above the "
                f"limit of {cap:g}: CUDA's own part is larger there than is kept for it."
            )
        found += [f"{duel.row.title}: memory ran out ({rung})." for rung in measured.rungs]
    if any(measured.process_by == "card" for _, measured in every):
        found.append(
            "The driver named no processes: their VRAM is what the card's use grew by, and right "
            "only if nothing else ran there."
        )
    return list(dict.fromkeys(found))
