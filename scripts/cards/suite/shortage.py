"""Memory that really runs out: the rungs that the engine climbs, and the request after it.

On a GPU a tensor fills the card but for a rest, and in the last case torch may take less than the
model needs; on a CPU the address space of the process is limited.
"""

import resource
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch

from scripts.cards.child import environment
from scripts.cards.suite.parity import SHARE
from scripts.cards.suite.parts import Report, Task, Tell
from service import config as settings
from service.diffusion.card import GIB
from service.diffusion.generation import (
    GenerationRequest,
    JobFailed,
    JobFinished,
    Outcome,
    OutOfMemoryHit,
)
from service.diffusion.memory import free_cache
from service.diffusion.step_loop import StepLoop
from service.engine import worker
from service.errors import OutOfMemory
from service.telemetry import logs

MIB: Final = 2**20
CAP: Final = 0
LEFT: Final = {"gpu": (2048, 1024, 512, 256, 32, CAP), "cpu": (150, 60)}
"""MiB that the large requests find, and last the cap."""

LARGE: Final = {"gpu": (768, 4, 4), "cpu": (1024, 2, 2)}
"""Pixels along a side, steps, images asked for at the same time."""

NORMAL: Final = {"gpu": (512, 8), "cpu": (256, 2)}
"""Smaller than the large ones: a size that did not fit is decoded in tiles for a while."""

CAP_GB: Final = 0.5
"""Less than the UNet of Stable Diffusion 1.5 takes, so that the request has to fail."""

SLACK: Final = (0, 64, 256, 1024)
"""MiB that are left more than asked for where the driver does not give the last ones."""

HEAD: Final = (
    *("memory left", "asked for", "climbed", "images", "failed", "s"),
    "the normal request afterwards",
)


@dataclass(kw_only=True)
class Case:
    """One shortage, and what came of it."""

    left: str
    outcomes: Sequence[Outcome]
    seconds: float
    after: float | None
    """Share of the normal image's values within 1 of what they were; None without an image."""

    @property
    def climbed(self) -> str:
        """The rungs by stage, in the order in which they were first climbed."""
        stages: dict[str, dict[str, None]] = {}
        for hit in self.outcomes:
            if isinstance(hit, OutOfMemoryHit):
                stages.setdefault(hit.stage, {})[hit.rung] = None
        return "; ".join(f"{stage}: {', '.join(rungs)}" for stage, rungs in stages.items())

    @property
    def codes(self) -> Counter[str]:
        """The failed jobs by code."""
        return Counter(each.code for each in self.outcomes if isinstance(each, JobFailed))

    @property
    def images(self) -> int:
        """The jobs that were finished."""
        return sum(isinstance(each, JobFinished) for each in self.outcomes)

    def row(self, asked: str) -> tuple[str, ...]:
        """Return its cells."""
        failed = ", ".join(f"{count} {code}" for code, count in self.codes.items())
        after = "failed" if self.after is None else f"{100 * self.after:.2f} % within 1"
        if self.after == 1:
            after = "the same image"
        return (
            *(self.left, asked, self.climbed or "nothing", str(self.images), failed or "-"),
            *(f"{self.seconds:.1f}", after),
        )

    def fault(self) -> str:
        """Return what is wrong with it; empty if nothing is."""
        if other := set(self.codes) - {OutOfMemory.code}:
            return f"{self.left} left: a job failed with {', '.join(sorted(other))}"
        if self.after is None or self.after < SHARE:
            return f"{self.left} left: the normal request afterwards failed or differs"
        return ""


def run(task: Task, tell: Tell) -> None:
    """Let memory run out by degrees, with the normal request before and after each."""
    kind = "cpu" if task.on_cpu else "gpu"
    side, steps, count = LARGE[kind]
    limits = {"MAX_CONCURRENT_REQUESTS": str(count), "LOG_LEVEL": "WARNING", "MAX_SIZE": "1024"}
    config = settings.load(environment(task.settings(**limits)))
    logs.configure(config)
    loop, _ = worker.load(config)
    worker.warmed_up(loop, config)
    reference = normal(loop, kind)
    if reference is None:
        raise RuntimeError("The normal request failed before memory was short.")
    asked = f"{count} of {side}x{side}"
    report = Report(table=[HEAD])
    cases: list[Case] = []
    for left in LEFT[kind]:
        # A batch that is known not to fit is split without a try: it is to be tried.
        loop.forget_footprint()
        started = time.perf_counter()
        with short(left, gpu=not task.on_cpu):
            outcomes = finished(loop, side=side, steps=steps, count=count)
        seconds = time.perf_counter() - started
        now = normal(loop, kind)
        after = None if now is None else within_one(now, reference)
        cases.append(Case(left=title(left), outcomes=outcomes, seconds=seconds, after=after))
        report.table.append(cases[-1].row(asked))
        print(*report.table[-1], sep=", ")
        report.fail(cases[-1].fault())
        tell(report)
    if not any(case.climbed for case in cases):
        report.fail("memory never ran out")
    tell(report)


def title(left: int) -> str:
    """Return a shortage as the table has it."""
    return f"a cap of {CAP_GB:g} GB" if left == CAP else f"{left} MiB"


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


def finished(loop: StepLoop, *, side: int, steps: int, count: int) -> list[Outcome]:
    """Ask for images at the same time, and return all that the step loop reports."""
    for number in range(count):
        request = GenerationRequest(
            prompt="a boat", width=side, height=side, steps=steps, seed=number
        )
        loop.add(f"{number}", request)
    outcomes: list[Outcome] = []
    while loop.busy:
        outcomes += loop.step()
    return outcomes


def normal(loop: StepLoop, kind: str) -> np.ndarray | None:
    """Return the values of the normal request's image; None if it failed."""
    side, steps = NORMAL[kind]
    for outcome in finished(loop, side=side, steps=steps, count=1):
        if isinstance(outcome, JobFinished):
            return np.frombuffer(outcome.pictures[0].pixels, np.uint8)
    return None


def within_one(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Return the share of 8-bit values that differ by 1 at most."""
    return float((np.abs(ours.astype(int) - theirs.astype(int)) <= 1).mean())
