"""Which batch is worth its latency, over a step loop of paper and a real one."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from service.core.events import (
    BatchCalibrated,
    JobCancelled,
    JobFailed,
    JobFinished,
    LoopEvent,
    Stepped,
)
from service.core.spec import GenerationSpec
from service.diffusion.load import Model
from service.diffusion.loop.step_loop import StepLoop, no_fault
from service.diffusion.loop.trials.calibration import STEPS, calibrate, chosen
from tests.unit.diffusion.step_loops import drained, of


class PaperLoop:
    """Steps that take ``fixed + each * images`` seconds for every 64 x 64 pixels."""

    def __init__(self, *, fixed: float, each: float, fits: int = 64) -> None:
        self.fault = no_fault
        self.now = 0.0
        self.capped: list[int] = []
        self.limits = SimpleNamespace(cap=self.capped.append)
        self.asked: list[tuple[int, int]] = []
        """Size and images of every job."""
        self._fixed, self._each, self._fits = fixed, each, fits
        self._request: GenerationSpec | None = None
        self._left: list[LoopEvent] = []

    @property
    def busy(self) -> bool:
        return bool(self._request or self._left)

    def add(self, _job_id: str, request: GenerationSpec) -> None:
        self._request = request
        self.asked.append((request.width, request.num_images))

    def cancel(self, job_id: str) -> None:
        if self._request is not None:
            self._request = None
            self._left.append(JobCancelled(job_id=job_id, epoch=1))

    def step(self) -> list[LoopEvent]:
        left, self._left = self._left, []
        if (request := self._request) is None:
            return left
        if request.num_images > self._fits:
            self._request = None
            return [JobFailed(job_id="", epoch=1, code="out_of_memory", detail="")]
        area = (request.width / 64) ** 2
        seconds = area * (self._fixed + self._each * request.num_images)
        self.now += seconds
        return [Stepped(batch_size=request.num_images, pixels=1, seconds=seconds)]


def found(loop: PaperLoop, *, limit: int = 8, budget: float = 1000.0) -> BatchCalibrated | None:
    return calibrate(
        cast("StepLoop", loop),
        sizes=(128, 64),
        batch_limit=limit,
        budget=budget,
        clock=lambda: loop.now,
    )


@pytest.mark.parametrize(
    ("seconds", "batch"),
    [
        ({1: 1.0, 2: 2.0, 3: 3.0}, 1),  # A full device: batches gain nothing.
        ({1: 1.0, 2: 1.92, 3: 2.88}, 1),  # 4 % are not worth it.
        ({1: 1.0, 2: 1.88, 3: 2.82}, 2),  # 6 % are.
        ({1: 1.0, 2: 1.1, 3: 1.2, 4: 1.3}, 4),
        ({1: 1.0, 2: 1.2, 3: 1.74, 4: 2.32, 6: 3.6}, 2),
        ({1: 1.0}, 1),
    ],
)
def test_the_smallest_batch_near_the_best_is_chosen(seconds, batch):
    """An image may take 5 % longer than in the best batch."""
    assert chosen(seconds) == batch


def test_a_device_that_one_image_fills_is_capped_at_one():
    """As on a GTX 1060: the times of the batches are reported with the cap."""
    loop = PaperLoop(fixed=0.0, each=1.0)
    assert found(loop, limit=3) == BatchCalibrated(batch=1, size=128, seconds={1: 4, 2: 8, 3: 12})
    assert loop.capped == [1]


def test_a_device_that_gains_to_the_end_keeps_its_limit():
    """MAX_CONCURRENT_REQUESTS is measured, too, whatever number it is."""
    calibrated = found(PaperLoop(fixed=10.0, each=1.0), limit=5)
    assert calibrated is not None
    assert (calibrated.batch, list(calibrated.seconds)) == (5, [1, 2, 3, 4, 5])


def test_a_slow_device_is_measured_with_small_images():
    """Where three batches of the usual size would take longer than there is time."""
    loop = PaperLoop(fixed=0.0, each=1.0)
    calibrated = found(loop, limit=2, budget=20.0)
    assert calibrated is not None
    assert (calibrated.batch, calibrated.size) == (1, 64)


@pytest.mark.parametrize("budget", [1.0, 10.0, 40.0])
def test_the_time_it_takes_is_bounded(budget):
    """By the budget and the one image that is always measured; nothing is capped then."""
    loop = PaperLoop(fixed=0.9, each=0.1)
    assert found(loop, limit=64, budget=budget) is None
    assert loop.now <= budget + STEPS * 1.0
    assert loop.capped == []


def test_memory_that_ends_first_caps_nothing():
    """How many fit is asked anew before every step; it is no question of gain."""
    loop = PaperLoop(fixed=10.0, each=1.0, fits=2)
    assert found(loop) is None
    assert loop.capped == []


def test_a_real_loop_makes_no_larger_batch_afterwards(sd: Model) -> None:
    """And no image is decoded, no job left behind by the measurement."""
    loop = StepLoop(sd, batch_limit=4)
    calibrate(loop, sizes=(16, 16), batch_limit=4)
    assert not loop.busy

    loop.limits.cap(2)
    loop.add("a", GenerationSpec(prompt="a cat", width=16, height=16, steps=2, num_images=4))
    outcomes: list[Any] = drained(loop)

    assert max(step.batch_size for step in of(Stepped, outcomes)) == 2
    assert len(of(JobFinished, outcomes)[0].images) == 4
