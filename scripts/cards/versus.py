"""The engine beside the plain diffusers pipeline: rows of a table, measured in turns."""

import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final

from scripts.benchmark.rows import Row, rows
from scripts.cards.child import run
from scripts.cards.order import ENGINE, PIPELINE, Measured, Order
from scripts.cards.pictures import Difference, difference

GIB: Final = 2**30
CONTENDERS: Final = (ENGINE, PIPELINE)

OVERTIME_SECONDS: Final = 60.0
"""What a turn may take beyond the time after which none begins; one that hangs is ended then."""


ROWS: Final = rows("512x512/20,768x512/25,768x768/30")


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
    wanted: Sequence[Row],
    settings: Mapping[str, str],
    *,
    rounds: int,
    pictures: int,
    folder: Path,
    ends: float,
    ran: Callable[[Row, str, Measured], object],
) -> Iterator[Duel]:
    """Measure each row by each contender, again and again, and yield the rows at the end.

    Never are two of them there at once: a card of 6 GB has no room for two models, and what
    one holds would bind the other. Each turn has a process of its own, so that its peak is its
    own, too. All rows have their first turn before any has its second. After the time ``ends``
    (``time.monotonic``) no turn begins, and before it none that takes too long by the one before:
    one that is cut off would be counted as a failure.
    """
    duels = [Duel(row=row) for row in wanted]
    took: dict[tuple[Row, str], float] = {}
    for number in range(rounds):
        for duel in duels:
            # Who begins alternates, so that a card that warms up is warm for both.
            for contender in CONTENDERS if number % 2 == 0 else CONTENDERS[::-1]:
                begins = time.monotonic()
                late = begins + took.get((duel.row, contender), 0.0) > ends + OVERTIME_SECONDS
                if late or begins >= ends or duel.failure(contender) not in {"", "not run"}:
                    continue
                place = folder / f"{title(duel.row)}-{contender}"
                place.mkdir(exist_ok=True)
                order = Order(
                    contender=contender,
                    width=duel.row.width,
                    height=duel.row.height,
                    steps=duel.row.steps,
                    rounds=pictures,
                    folder=str(place),
                )
                left = ends - begins + OVERTIME_SECONDS
                measured = run(order, settings, limit_seconds=left)
                took[duel.row, contender] = time.monotonic() - begins
                duel.runs[contender].append(measured)
                ran(duel.row, contender, measured)
    for duel in duels:
        ours, theirs = (folder / f"{title(duel.row)}-{contender}" for contender in CONTENDERS)
        duel.gap = difference(ours, theirs)
        yield duel


def table(duels: Sequence[Duel], *, gpu: bool) -> str:
    """Return the rows as a Markdown table."""
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
    columns = ("picture", "engine, s", "pipeline, s", "ratio", *memory, "difference, grey levels")
    lines = [columns, ("---",) * len(columns), *(_cells(duel, gpu=gpu) for duel in duels)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cells(duel: Duel, *, gpu: bool) -> Sequence[str]:
    cells = [title(duel.row)]
    cells += [_seconds(duel, contender) for contender in CONTENDERS]
    cells.append("-" if duel.ratio is None else f"{duel.ratio:.2f}")
    name = "process" if gpu else "host"
    cells += [_gigabytes(duel.most(contender, name)) for contender in CONTENDERS]
    for more in ("reserved", "allocated") if gpu else ():
        both = [_gigabytes(duel.most(contender, more)) for contender in CONTENDERS]
        cells.append(" and ".join(both))
    cells.append("-" if duel.gap is None else f"{duel.gap.mean:.2f}")
    return cells


def _seconds(duel: Duel, contender: str) -> str:
    seconds = duel.seconds(contender)
    return duel.failure(contender) if seconds is None else f"{seconds:.2f}"


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


def machine(duels: Sequence[Duel]) -> dict[str, str]:
    """Return what it was measured on."""
    known = [each for duel in duels for runs in duel.runs.values() for each in runs if each.worked]
    if not known:
        return {}
    first = known[0]
    device = first.device if first.gpu else f"CPU ({platform.machine()})"
    return {
        "device": device,
        "dtype": first.dtype,
        "torch": first.torch,
        "python": platform.python_version(),
    }
