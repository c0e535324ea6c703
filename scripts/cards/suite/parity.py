"""One request on a GPU, on a CPU, and with the plain pipeline: how far the images are apart."""

import time
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Final

from scripts.benchmark.rows import row
from scripts.cards.images import difference
from scripts.cards.measure import ENGINE, PIPELINE, Order
from scripts.cards.measure import run as measure
from scripts.cards.suite.parts import Report, Task, Tell
from service.models.catalog import DEMO_ID

CPU: Final = {"DEVICE": "cpu", "DTYPE": "float32"}
GPU: Final = {"DEVICE": "cuda", "DTYPE": "float32"}
HALF: Final = {**GPU, "DTYPE": "float16"}
NOTES: Final = (
    "float32 and float16 give two images of one seed, with diffusers, too: the noise differs.",
    "With TF32 CUDA's libraries multiply float32 with 10 bits of mantissa.",
)

RUNS: Final = {
    "gpu": {
        "engine, CPU, float32": (ENGINE, CPU),
        "engine, GPU, float32": (ENGINE, GPU),
        "pipeline, GPU, float32": (PIPELINE, GPU),
        "engine, GPU, float16": (ENGINE, HALF),
        "pipeline, GPU, float16": (PIPELINE, HALF),
        "engine, GPU, float32 without TF32": (ENGINE, {**GPU, "NVIDIA_TF32_OVERRIDE": "0"}),
    },
    "cpu": {
        "engine, CPU, float32": (ENGINE, CPU),
        "pipeline, CPU, float32": (PIPELINE, CPU),
    },
}
"""By name, who draws and with which settings."""

PAIRS: Final = (
    ("engine, GPU, float32", "pipeline, GPU, float32"),
    ("engine, GPU, float16", "pipeline, GPU, float16"),
    ("engine, GPU, float32", "engine, CPU, float32"),
    ("engine, GPU, float32 without TF32", "engine, CPU, float32"),
    ("engine, GPU, float16", "engine, CPU, float32"),
    ("engine, CPU, float32", "pipeline, CPU, float32"),
)
SHARE: Final = 0.999
"""Of the values, which the engine's image and the pipeline's must have in common within 1."""

ROW: Final = {"gpu": row("512x512/20"), "cpu": row("256x256/4")}
HEAD: Final = (
    *("image", "compared with", "values within 1", "largest difference"),
    *("mean difference, grey levels", "s an image"),
)


def run(task: Task, tell: Tell) -> None:
    """Draw with the demo model, and compare."""
    ends = time.monotonic() + task.seconds
    of = ROW[task.kind]
    report = Report(notes=[f"The demo model, {of.title}, two images of each."])
    report.notes += () if task.on_cpu else NOTES
    seconds: dict[str, str] = {}
    for name, (contender, settings) in RUNS[task.kind].items():
        place = str(folder(task, name))
        order = Order(contender=contender, row=of, rounds=2, folder=place)
        given = {**task.settings(**settings), "MODEL_ID": DEMO_ID}
        measured = measure(order, given, seconds=max(ends - time.monotonic(), 1.0))
        report.figures[name] = asdict(measured)
        if measured.failure:
            report.fail(f"{name}: {measured.failure}")
        else:
            seconds[name] = f"{median(measured.seconds):.3f}"
        compare(task, report, seconds)
        tell(report)
    for ours, theirs in PAIRS:
        gap = report.figures.get(f"{ours} / {theirs}")
        if gap and PIPELINE in theirs and gap["within_one"] < SHARE:
            report.fail(f"{ours}: fewer than {SHARE:.1%} of the values are within 1 of {theirs}")
    tell(report)


def compare(task: Task, report: Report, seconds: dict[str, str]) -> None:
    """Fill the table with the pairs that are there."""
    report.table = [HEAD]
    for ours, theirs in PAIRS:
        gap = difference(folder(task, ours), folder(task, theirs))
        if gap is None:
            continue
        report.figures[f"{ours} / {theirs}"] = asdict(gap)
        cells = gap.share, str(gap.largest), f"{gap.mean:.3f}", seconds.get(ours, "-")
        report.table.append((ours, theirs, *cells))


def folder(task: Task, name: str) -> Path:
    """Return where the images of a run go."""
    return task.images(f"parity-{name.replace(', ', '-').replace(' ', '-')}")
