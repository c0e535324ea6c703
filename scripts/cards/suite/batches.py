"""What a batch gains: several images of one size at a time, by the engine."""

import time
from dataclasses import asdict
from statistics import median
from typing import Final

from scripts.benchmark.rows import row
from scripts.cards.images import difference
from scripts.cards.measure import ENGINE, Measured, Order
from scripts.cards.measure import run as measure
from scripts.cards.suite.parts import Report, Task, Tell
from service.gpu.card import GIB

BATCHES: Final = {"gpu": (1, 2, 4, 8, 16), "cpu": (1, 2)}
ROW: Final = {"gpu": row("512x512/20"), "cpu": row("256x256/2")}
HEAD: Final = (
    *("batch", "s a step", "s a step and image", "ratio to batch 1", "s an image"),
    *("images a second", "VRAM of the process, GB", "torch held, GB", "values within 1 of batch 1"),
)


def run(task: Task, tell: Tell) -> None:
    """Measure one batch after the other, each in a process of its own."""
    ends = time.monotonic() + task.seconds
    of = ROW[task.kind]
    report = Report(table=[HEAD], notes=[f"{of.title}, no memory limit."])
    alone: Measured | None = None
    for count in BATCHES[task.kind]:
        folder = task.images(f"batch-{count}")
        order = Order(contender=ENGINE, row=of, rounds=2, batch=count, folder=str(folder))
        settings = task.settings(MAX_CONCURRENT_REQUESTS=str(count))
        measured = measure(order, settings, seconds=max(ends - time.monotonic(), 1.0))
        report.figures[str(count)] = asdict(measured)
        if measured.failure:
            report.fail(f"batch {count}: {measured.failure}")
        else:
            alone = alone or measured
            gap = difference(folder, task.images(f"batch-{BATCHES[task.kind][0]}"))
            report.table.append(cells(count, measured, alone, gap.share if gap else "-"))
            print(*report.table[-1], sep=", ")
        tell(report)


def cells(count: int, measured: Measured, alone: Measured, same: str) -> tuple[str, ...]:
    """Return the cells of one batch; ``alone`` is the first that worked."""
    seconds, each = median(measured.seconds), measured.step_seconds / count
    return (
        str(count),
        f"{measured.step_seconds:.4f}",
        f"{each:.4f}",
        f"{each / alone.step_seconds:.2f}",
        f"{seconds:.3f}",
        f"{1 / seconds:.2f}",
        gigabytes(measured.process),
        gigabytes(measured.reserved),
        same,
    )


def gigabytes(count: int) -> str:
    """Return bytes as the tables have them; nothing measured is a dash."""
    return f"{count / GIB:.2f}" if count else "-"
