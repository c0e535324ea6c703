"""Memory that really runs out: the rungs that the engine climbs, and the request after it.

On a GPU a tensor fills the card but for a rest, and in the last case torch may take less than the
model needs; on a CPU the address space of the process is limited.
"""

import resource
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np
import torch

from scripts.cards.measure import environment
from scripts.cards.suite.parity import SHARE
from scripts.cards.suite.parts import Report, Task, Tell
from service.config import loading
from service.core.events import JobFailed, JobFinished, LoopEvent, OutOfMemoryHit
from service.core.spec import GenerationSpec
from service.diffusion.loop.step_loop import StepLoop
from service.diffusion.memory.usage import free_cache
from service.engine.process import worker
from service.errors import OutOfMemory
from service.gpu.card import GIB
from service.telemetry import logs

MIB: Final = 2**20
CAP: Final = 0
LEFT: Final = {"gpu": (2048, 1024, 512, 256, 32, CAP), "cpu": (150, 60)}
"""MiB that the large requests find, and last the cap."""

LARGE: Final = {"gpu": (768, 4, 4), "cpu": (1024, 2, 2)}
"""Pixels along a side, steps, images asked for at the same time."""

NORMAL: Final = {"gpu": (512, 8, 1), "cpu": (256, 2, 1)}
"""Smaller than the large ones: a size that did not fit is decoded in tiles for a while."""

CAP_GB: Final = 0.5
"""Less than the UNet of Stable Diffusion 1.5 takes, so that the request has to fail."""

SLACK: Final = (0, 64, 256, 1024)
"""MiB that are left more than asked for where the driver does not give the last ones."""

HEAD: Final = (
    *("memory left", "asked for", "climbed", "images", "failed", "s"),
    "the normal request afterwards",
)


def run(task: Task, tell: Tell) -> None:
    """Let memory run out by degrees, with the normal request before and after each."""
    side, _, count = LARGE[task.kind]
    limits = {"MAX_CONCURRENT_REQUESTS": str(count), "LOG_LEVEL": "WARNING", "MAX_SIZE": "1024"}
    config = loading.load(environment(task.settings(**limits)))
    logs.configure(config)
    loop, _ = worker.load(config)
    worker.warmed_up(loop, config)
    reference = values(finished(loop, *NORMAL[task.kind]))
    if reference is None:
        raise RuntimeError("The normal request failed before memory was short.")
    report = Report(table=[HEAD])
    for left in LEFT[task.kind]:
        # A batch that is known not to fit is split without a try: it is to be tried.
        loop.memory_model.forget()
        started = time.perf_counter()
        with short(left, gpu=not task.on_cpu):
            outcomes = finished(loop, *LARGE[task.kind])
        seconds = time.perf_counter() - started
        now = values(finished(loop, *NORMAL[task.kind]))
        after = None if now is None else within_one(now, reference)
        title = f"a cap of {CAP_GB:g} GB" if left == CAP else f"{left} MiB"
        asked = f"{count} of {side}x{side}"
        report.table.append((title, asked, *row(outcomes, seconds, after)))
        print(*report.table[-1], sep=", ")
        report.fail("".join(f"{title} left: {each}" for each in fault(outcomes, after)))
        tell(report)
    if all(cells[2] == "nothing" for cells in report.table[1:]):
        report.fail("memory never ran out")
    tell(report)


def row(outcomes: Sequence[LoopEvent], seconds: float, after: float | None) -> tuple[str, ...]:
    """Return what came of a shortage.

    ``after`` is the share of the normal image's values within 1 of what they were before; None
    without an image.
    """
    stages: dict[str, dict[str, None]] = {}  # The rungs, in the order in which they were climbed.
    for hit in outcomes:
        if isinstance(hit, OutOfMemoryHit):
            stages.setdefault(hit.stage, {})[hit.rung] = None
    climbed = "; ".join(f"{stage}: {', '.join(rungs)}" for stage, rungs in stages.items())
    images = sum(isinstance(each, JobFinished) for each in outcomes)
    failed = ", ".join(f"{count} {code}" for code, count in codes(outcomes).items())
    said = "failed" if after is None else f"{100 * after:.2f} % within 1"
    if after == 1:
        said = "the same image"
    return climbed or "nothing", str(images), failed or "-", f"{seconds:.1f}", said


def codes(outcomes: Sequence[LoopEvent]) -> Counter[str]:
    """Return the failed jobs by code."""
    return Counter(each.code for each in outcomes if isinstance(each, JobFailed))


def fault(outcomes: Sequence[LoopEvent], after: float | None) -> list[str]:
    """Return what is wrong with what came of a shortage; empty if nothing is."""
    if other := set(codes(outcomes)) - {OutOfMemory.code}:
        return [f"a job failed with {', '.join(sorted(other))}"]
    if after is None or after < SHARE:
        return ["the normal request afterwards failed or differs"]
    return []


@contextmanager
def short(left: int, *, gpu: bool) -> Iterator[None]:
    """Leave so many MiB and no more, until the end."""
    if not gpu:
        with limited_address_space(left * MIB):
            yield
    elif left == CAP:
        # What is cached counts as taken already, and would do for a while.
        free_cache(torch.device("cuda:0"))
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(CAP_GB * GIB / total)
        try:
            yield
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
    else:
        ballast = [filled(left * MIB)]
        try:
            yield
        finally:
            ballast.clear()
            free_cache(torch.device("cuda:0"))


def filled(left: int) -> torch.Tensor:
    """Return a tensor that leaves about so many bytes of the card.

    Raises:
        torch.OutOfMemoryError: the driver gives none that is large enough.

    """
    free_cache(torch.device("cuda:0"))
    free, _ = torch.cuda.mem_get_info()
    for slack in SLACK:
        size = max(free - left - slack * MIB, 0)
        try:
            return torch.empty(size, dtype=torch.uint8, device="cuda:0")
        except torch.OutOfMemoryError:
            free_cache(torch.device("cuda:0"))
    raise torch.OutOfMemoryError(f"{free / GIB:.1f} GB are free, and cannot be had.")


@contextmanager
def limited_address_space(left: int) -> Iterator[None]:
    """Let this process map so many more bytes and no more."""
    mapped = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (mapped * resource.getpagesize() + left, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def finished(loop: StepLoop, side: int, steps: int, count: int) -> list[LoopEvent]:
    """Ask for images at the same time, and return all that the step loop reports."""
    for number in range(count):
        request = GenerationSpec(prompt="a boat", width=side, height=side, steps=steps, seed=number)
        loop.add(f"{number}", request)
    outcomes: list[LoopEvent] = []
    while loop.busy:
        outcomes += loop.step()
    return outcomes


def values(outcomes: Sequence[LoopEvent]) -> np.ndarray | None:
    """Return the values of the first image; None without one."""
    for outcome in outcomes:
        if isinstance(outcome, JobFinished):
            return np.frombuffer(outcome.images[0].pixels, np.uint8)
    return None


def within_one(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Return the share of 8-bit values that differ by 1 at most."""
    return float((np.abs(ours.astype(int) - theirs.astype(int)) <= 1).mean())
