"""One request on a GPU, on a CPU, and with the plain pipeline: how far the images are apart."""

import time
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Final

from scripts.cards.child import run as measure
from scripts.cards.order import ENGINE, PIPELINE, Order
from scripts.cards.pictures import difference
from scripts.cards.suite.parts import Report, Task, Tell
from service.models.catalog import DEMO_ID

CPU: Final = {"DEVICE": "cpu", "DTYPE": "float32"}
GPU: Final = {"DEVICE": "cuda", "DTYPE": "float32"}
EXACT: Final = {**GPU, "NVIDIA_TF32_OVERRIDE": "0"}
"""Float32 without TF32."""

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
        "engine, GPU, float32 without TF32": (ENGINE, EXACT),
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

SIZE: Final = {"gpu": (512, 20), "cpu": (256, 4)}
HEAD: Final = (
    *("image", "compared with", "values within 1", "largest difference"),
    *("mean difference, grey levels", "s an image"),
)


def run(task: Task, tell: Tell) -> None:
    """Draw with the demo model, and compare."""
    ends = time.monotonic() + task.seconds
    kind = "cpu" if task.on_cpu else "gpu"
    side, steps = SIZE[kind]
    report = Report(notes=[f"The demo model, {side}x{side}, {steps} steps, two images of each."])
    report.notes += () if task.on_cpu else NOTES
    seconds: dict[str, float] = {}
    for name, (contender, settings) in RUNS[kind].items():
        place = folder(task, name)
        place.mkdir(exist_ok=True)
        order = Order(
            contender=contender, width=side, height=side, steps=steps, rounds=2, folder=str(place)
        )
        limit = max(ends - time.monotonic(), 1.0)
        measured = measure(
            order, {**task.settings(**settings), "MODEL_ID": DEMO_ID}, limit_seconds=limit
        )
        report.figures[name] = asdict(measured)
        if measured.failure:
            report.fail(f"{name}: {measured.failure}")
        else:
            seconds[name] = median(measured.seconds)
        compare(task, report, seconds)
        tell(report)
    for ours, theirs in PAIRS:
        gap = report.figures.get(f"{ours} / {theirs}")
        if gap and PIPELINE in theirs and gap["within_one"] < SHARE:
            report.fail(f"{ours}: fewer than {SHARE:.1%} of the values are within 1 of {theirs}")
    tell(report)


def compare(task: Task, report: Report, seconds: dict[str, float]) -> None:
    """Fill the table with the pairs that are there."""
    report.table = [HEAD]
    for ours, theirs in PAIRS:
        gap = difference(folder(task, ours), folder(task, theirs))
        if gap is None:
            continue
        report.figures[f"{ours} / {theirs}"] = {
            "within_one": gap.within_one,
            "largest": gap.largest,
            "mean": gap.mean,
        }
        took = f"{seconds[ours]:.3f}" if ours in seconds else "-"
        report.table.append((ours, theirs, gap.share, str(gap.largest), f"{gap.mean:.3f}", took))


def folder(task: Task, name: str) -> Path:
    """Return where the images of a run go."""
    return task.images_folder() / f"parity-{name.replace(', ', '-').replace(' ', '-')}"
