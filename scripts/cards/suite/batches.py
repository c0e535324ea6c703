"""What a batch gains: several images of one size at a time, by the engine."""

import time
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Final

from scripts.cards.child import run as measure
from scripts.cards.order import ENGINE, Measured, Order
from scripts.cards.pictures import difference
from scripts.cards.suite.parts import Report, Task, Tell
from service.diffusion.card import GIB

BATCHES: Final = {"gpu": (1, 2, 4, 8, 16), "cpu": (1, 2)}
SIZE: Final = {"gpu": (512, 20), "cpu": (256, 2)}
"""Pixels along a side, and steps."""

HEAD: Final = (
    *("batch", "s a step", "s a step and image", "ratio to batch 1", "s an image"),
    *("images a second", "VRAM of the process, GB", "torch held, GB", "values within 1 of batch 1"),
)


def run(task: Task, tell: Tell) -> None:
    """Measure one batch after the other, each in a process of its own."""
    ends = time.monotonic() + task.seconds
    kind = "cpu" if task.on_cpu else "gpu"
    side, steps = SIZE[kind]
    report = Report(table=[HEAD], notes=[f"{side}x{side}, {steps} steps, no memory limit."])
    alone: Measured | None = None
    folders: list[Path] = []
    for count in BATCHES[kind]:
        folders.append(task.images_folder() / f"batch-{count}")
        folders[-1].mkdir(exist_ok=True)
        order = Order(
            contender=ENGINE,
            width=side,
            height=side,
            steps=steps,
            rounds=2,
            batch=count,
            folder=str(folders[-1]),
        )
        settings = task.settings(MAX_CONCURRENT_REQUESTS=str(count))
        measured = measure(order, settings, limit_seconds=max(ends - time.monotonic(), 1.0))
        report.figures[str(count)] = asdict(measured)
        if measured.failure:
            report.fail(f"batch {count}: {measured.failure}")
        else:
            alone = alone or measured
            gap = difference(folders[-1], folders[0])
            report.table.append(row(count, measured, alone, gap.share if gap else "-"))
            print(*report.table[-1], sep=", ")
        tell(report)


def row(count: int, measured: Measured, alone: Measured, same: str) -> tuple[str, ...]:
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
