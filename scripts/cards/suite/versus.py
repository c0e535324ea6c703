"""The engine and the plain diffusers pipeline: rows of a table, measured in turns."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final

from scripts.benchmark.rows import Row, rows
from scripts.cards.child import run as measure
from scripts.cards.order import ENGINE, PIPELINE, Measured, Order
from scripts.cards.pictures import Difference, difference
from scripts.cards.suite.parts import Report, Task, Tell

GIB: Final = 2**30
CONTENDERS: Final = (ENGINE, PIPELINE)

OVERTIME: Final = 0.15
"""Share of the time after which no turn begins: one that hangs is ended within it."""


def run(task: Task, tell: Tell) -> None:
    """Measure the rows, and tell the table after each turn."""
    started = time.monotonic()
    duels = [Duel(row=row) for row in rows(task.rows)]
    limit = {} if task.on_cpu else {"VRAM_LIMIT_GB": f"{task.vram:g}", "PROFILE": "6gb"}

    def ran(duel: Duel, contender: str, measured: Measured) -> None:
        said = measured.failure or f"{median(measured.seconds):.2f} s an image"
        print(f"{title(duel.row)}, {contender}: {said}")
        tell(report(duels, task))

    turns(
        duels,
        task.settings(**limit),
        rounds=task.rounds,
        images=task.images,
        folder=task.images_folder(),
        ends=started + task.seconds,
        ran=ran,
    )
    tell(report(duels, task))


def title(row: Row) -> str:
    """Return a row as the table has it."""
    return f"{row.size}, {row.steps} steps"


@dataclass(kw_only=True)
class Duel:
    """What both made of a row, in every turn that both had."""

    row: Row
    runs: dict[str, list[Measured]] = field(
        default_factory=lambda: {contender: [] for contender in CONTENDERS}
    )
    gap: Difference | None = None
    """Between the pictures of both, of the same seeds."""

    def failure(self, contender: str) -> str:
        """Return why a contender has no figure; empty if it has."""
        runs = self.runs[contender]
        return next((each.failure for each in runs if each.failure), "" if runs else "not run")

    def seconds(self, contender: str) -> float | None:
        """Return the median over all pictures of all turns."""
        found = [one for each in self.runs[contender] if each.worked for one in each.seconds]
        return median(found) if found and not self.failure(contender) else None

    def most(self, contender: str, name: str) -> int:
        """Return the highest of a figure over all turns."""
        return max((getattr(each, name) for each in self.runs[contender]), default=0)

    def folder(self, contender: str, root: Path) -> Path:
        """Return where its images go."""
        return root / f"{self.row.size}-{self.row.steps}-{contender}"

    def order(self, contender: str, images: int, root: Path) -> Order:
        """Return what a measuring process is told, with a folder for its images."""
        self.folder(contender, root).mkdir(exist_ok=True)
        return Order(
            contender=contender,
            width=self.row.width,
            height=self.row.height,
            steps=self.row.steps,
            rounds=images,
            folder=str(self.folder(contender, root)),
        )

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


def turns(
    duels: Sequence[Duel],
    settings: Mapping[str, str],
    *,
    rounds: int,
    images: int,
    folder: Path,
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
    for number in range(rounds):
        for duel in duels:
            # Who begins alternates, so that a card that warms up is warm for both.
            for contender in CONTENDERS if number % 2 == 0 else CONTENDERS[::-1]:
                begins = time.monotonic()
                late = begins + took.get((duel.row, contender), 0.0) > ends
                if late or begins >= last or duel.failure(contender) not in {"", "not run"}:
                    continue
                measured = measure(
                    duel.order(contender, images, folder), settings, limit_seconds=ends - begins
                )
                took[duel.row, contender] = time.monotonic() - begins
                duel.runs[contender].append(measured)
                duel.gap = difference(*(duel.folder(name, folder) for name in CONTENDERS))
                ran(duel, contender, measured)


def report(duels: Sequence[Duel], task: Task) -> Report:
    """Return what is known of the rows."""
    missing = [
        f"{title(duel.row)}, {name}: {reason}"
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
    memory = (
        (
            "engine, VRAM of the process, GB",
            "pipeline, VRAM of the process, GB",
            "torch held, both, GB",
            "torch gave out, both, GB",
        )
        if gpu
        else ("engine, host memory, GB", "pipeline, host memory, GB")
    )
    columns = (
        *("image", "turns", "engine, s", "pipeline, s", "ratio"),
        *(*memory, "values within 1", "mean difference, grey levels"),
    )
    return [columns, *(_cells(duel, gpu=gpu) for duel in duels)]


def _cells(duel: Duel, *, gpu: bool) -> Sequence[str]:
    cells = [title(duel.row), str(min(len(duel.runs[name]) for name in CONTENDERS))]
    cells += [_seconds(duel, contender) for contender in CONTENDERS]
    cells.append("-" if duel.ratio is None else f"{duel.ratio:.2f}")
    name = "process" if gpu else "host"
    cells += [_gigabytes(duel.most(contender, name)) for contender in CONTENDERS]
    for more in ("reserved", "allocated") if gpu else ():
        both = [_gigabytes(duel.most(contender, more)) for contender in CONTENDERS]
        cells.append(" and ".join(both))
    cells += ["-", "-"] if duel.gap is None else [duel.gap.share, f"{duel.gap.mean:.2f}"]
    return cells


def _seconds(duel: Duel, contender: str) -> str:
    seconds = duel.seconds(contender)
    return duel.failure(contender) if seconds is None else f"{seconds:.3f}"


def _gigabytes(count: int) -> str:
    return f"{count / GIB:.2f}" if count else "-"


def notes(duels: Sequence[Duel], cap: float) -> list[str]:
    """Return what a reader must know besides the figures."""
    found = []
    for duel in duels:
        for measured in (each for runs in duel.runs.values() for each in runs):
            if cap and measured.process > cap * GIB:
                found.append(
                    f"{title(duel.row)}: a process took {measured.process / GIB:.2f} GB, above the "
                    f"limit of {cap:g}: CUDA's own part is larger there than is kept for it."
                )
            found += [f"{title(duel.row)}: memory ran out ({rung})." for rung in measured.rungs]
    if any(
        each.process_by == "card" for duel in duels for runs in duel.runs.values() for each in runs
    ):
        found.append(
            "The driver named no processes: their VRAM is what the card's use grew by, and right "
            "only if nothing else ran there."
        )
    return list(dict.fromkeys(found))
