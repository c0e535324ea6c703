import sys
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from itertools import count, islice
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from service.core.events import JobFailed, JobFinished, LoopEvent, OutOfMemoryHit, Stepped
from service.core.image import RawImage
from service.core.inputs import EngineInputs, InputImage
from service.core.spec import GenerationSpec
from service.core.stage import Stage
from service.diffusion.load import Model
from service.diffusion.loop import rows, step_loop, tasks
from service.diffusion.loop.row import Row
from service.diffusion.loop.step_loop import StepLoop
from service.diffusion.memory import oom_recovery
from service.diffusion.memory.offloader import Offloader
from service.diffusion.memory.oom_recovery import ACTIONS
from tests.unit.diffusion.step_loops import drained, no_memory, of, raising

REQUEST = GenerationSpec(prompt="a cat", width=64, height=32, steps=4, seed=5)
REDRAWN = replace(
    REQUEST, width=128, height=64, image=InputImage(digest="0" * 64, width=128, height=64)
)
PIXELS = EngineInputs(image=bytes(range(256)) * 96)
DEVICE, HOST = torch.device("cpu"), torch.device("cpu", 0)
"""Two names of one device: what is moved between them arrives, and shows where it is."""


def looped(model: Model, **settings: object) -> StepLoop:
    """Return a loop that could move parts of its model away, as on a GPU."""
    loop = StepLoop(model, **{"batch_limit": 1, **settings})  # type: ignore[arg-type]
    loop._recovery.offloader = Offloader(model.family.parts, DEVICE, host=HOST)
    return loop


def alone(model: Model, request: GenerationSpec, inputs: EngineInputs | None = None) -> RawImage:
    """Return the image of a request that had all the memory it wanted."""
    loop = StepLoop(model, batch_limit=1)
    loop.add("alone", request, inputs=inputs)
    finished = drained(loop)[-1]
    assert isinstance(finished, JobFinished)
    return finished.images[0]


def actions(outcomes: list[LoopEvent]) -> list[tuple[str, int, str]]:
    """Return what was tried, in order."""
    return [(hit.stage, hit.batch_size, hit.rung) for hit in of(OutOfMemoryHit, outcomes)]


CASES = [
    pytest.param(stage, times, id=f"{stage}-{times}-{action}")
    for stage in ACTIONS
    for times, action in enumerate((*ACTIONS[stage], "fail"), start=1)
]


@pytest.mark.parametrize(("stage", "times"), CASES)
def test_every_action_of_every_stage(model: Callable[..., Model], stage: Stage, times: int) -> None:
    """A stage that runs out so many times in a row tries so many actions, and no further.

    The last one ends the request with advice, and only it: the request after it, which asks
    for the same, gets its image.
    """
    sd = model("lenient", safety_checker=True) if stage == "safety" else model("sd")
    request, inputs = (REDRAWN, PIXELS) if stage == "vae_encode" else (REQUEST, None)
    tried = (*ACTIONS[stage], "fail")[:times]
    loop = looped(sd, fault=raising((stage, 1, times), error=no_memory))
    loop.add("a", request, inputs=inputs)

    outcomes = drained(loop)
    loop.add("b", request, inputs=inputs)
    after = drained(loop)

    assert actions(outcomes) == [(stage, 1, action) for action in tried]
    if tried[-1] == "fail":
        (failed,) = of(JobFailed, outcomes)
        assert failed.code == "out_of_memory"
        assert f"{request.width}x{request.height}" in failed.detail
        assert "smaller size" in failed.detail
    else:
        (finished,) = of(JobFinished, outcomes)
        assert finished.images[0].seed == 5
        if "vae_tiling" not in tried:
            assert finished.images == (alone(sd, request, inputs),)
    assert not actions(after)
    assert len(of(JobFinished, after)) == 1


@pytest.mark.parametrize("stage", ["text_encode", "denoise", "vae_decode"])
def test_kernels_that_cannot_be_created_any_more(sd: Model, stage: str) -> None:
    """What oneDNN does not do again after a shortage, torch's own kernels do: nothing fails."""

    def fault(at: str, _images: int) -> None:
        if at == stage and torch._C._get_mkldnn_enabled():
            raise RuntimeError("could not create a primitive")

    loop = StepLoop(sd, batch_limit=1, fault=fault)
    loop.add("a", REQUEST)

    outcomes = drained(loop)

    (finished,) = of(JobFinished, outcomes)
    assert {action for _, _, action in actions(outcomes)} == {"free_cache"}
    difference = np.frombuffer(finished.images[0].pixels, np.uint8).astype(int)
    difference -= np.frombuffer(alone(sd, REQUEST).pixels, np.uint8)
    assert np.abs(difference).max() <= 1
    assert torch._C._get_mkldnn_enabled()


def test_batch_that_does_not_fit(sd: Model) -> None:
    """A batch is tried again with a free cache, then in halves, and later in smaller batches."""
    loop = StepLoop(sd, batch_limit=4, fault=raising(("denoise", 3, 2), error=no_memory))
    for name in "abcd":
        loop.add(name, REQUEST)

    outcomes = drained(loop)

    assert actions(outcomes) == [("denoise", 4, "free_cache"), ("denoise", 4, "split_batch")]
    assert {finished.job_id for finished in of(JobFinished, outcomes)} == set("abcd")
    assert [stepped.batch_size for stepped in of(Stepped, outcomes)] == [4] + [2] * 6


def test_images_of_a_split_batch_are_the_same(sd: Model) -> None:
    """Whatever happened to the batch, each image is the one that its seed gives."""
    loop = StepLoop(sd, batch_limit=3, fault=raising(("denoise", 2, 4), error=no_memory))
    for seed in range(3):
        loop.add(str(seed), replace(REQUEST, seed=seed))

    outcomes = drained(loop)

    made = {finished.job_id: finished.images[0] for finished in of(JobFinished, outcomes)}
    assert made == {str(seed): alone(sd, replace(REQUEST, seed=seed)) for seed in range(3)}


def test_image_that_never_fits(sd: Model) -> None:
    """An image that does not fit even alone fails; its batch-mates go on."""
    # The batch twice, then the first image alone through all actions.
    fault = raising(("denoise", 2, 2), ("denoise", 1, 3), error=no_memory)
    loop = looped(sd, batch_limit=2, fault=fault)
    loop.add("a", REQUEST)
    loop.add("b", REQUEST)

    outcomes = drained(loop)

    assert actions(outcomes) == [
        ("denoise", 2, "free_cache"),
        ("denoise", 2, "split_batch"),
        ("denoise", 1, "free_cache"),
        ("denoise", 1, "offload"),
        ("denoise", 1, "fail"),
    ]
    assert [failed.job_id for failed in of(JobFailed, outcomes)] == ["a"]
    (finished,) = of(JobFinished, outcomes)
    assert (finished.job_id, finished.images) == ("b", (alone(sd, REQUEST),))


def test_memory_that_runs_out_while_an_image_begins(
    sd: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Latents that do not fit at first are drawn again, the same."""
    row, left = Row, [no_memory()]

    def full(*given: object, **more: object) -> object:
        if left:
            raise left.pop()
        return row(*given, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(rows, "Row", full)
    loop = StepLoop(sd, batch_limit=1)
    loop.add("a", REQUEST)

    outcomes = drained(loop)

    assert actions(outcomes) == [("denoise", 1, "free_cache")]
    monkeypatch.undo()
    assert of(JobFinished, outcomes)[0].images == (alone(sd, REQUEST),)


def test_memory_that_runs_out_in_a_samplers_step(
    sd: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sampler's step changes its history, so it is not repeated: that request fails alone."""
    advance, left = Row.advance, [no_memory()]

    def full(self: Row, prediction: torch.Tensor) -> int:
        if left:
            raise left.pop()
        return advance(self, prediction)

    monkeypatch.setattr(Row, "advance", full)
    loop = looped(sd, batch_limit=2)
    loop.add("a", REQUEST)
    loop.add("b", REQUEST)

    outcomes = drained(loop)

    assert actions(outcomes) == [("denoise", 1, "fail")]
    assert [failed.job_id for failed in of(JobFailed, outcomes)] == ["a"]
    assert [finished.job_id for finished in of(JobFinished, outcomes)] == ["b"]


def test_lost_work_is_told_apart_from_work(sd: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time of an attempt that ran out of memory is in its own report, in no job's times."""
    clock = count()
    ticking = SimpleNamespace(perf_counter=lambda: next(clock))
    for module in (step_loop, tasks, oom_recovery):
        monkeypatch.setattr(module, "time", ticking)
    left = [MemoryError()]

    def slow(stage: str, _images: int) -> None:
        if stage == "denoise" and left:
            deque(islice(clock, 1000), maxlen=0)
            raise left.pop()

    loop = StepLoop(sd, batch_limit=1, fault=slow)
    loop.add("a", replace(REQUEST, steps=1))

    outcomes = drained(loop)

    (hit,) = of(OutOfMemoryHit, outcomes)
    (stepped,) = of(Stepped, outcomes)
    (finished,) = of(JobFinished, outcomes)
    assert 1000 <= hit.seconds < 1010
    assert stepped.seconds == stepped.shares["a"] == finished.times.denoise
    assert 0 < finished.times.total < 100


def test_freed_only_after_the_error_is_gone(sd: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache is freed when no traceback holds on to the tensors that did not fit."""
    handled: list[BaseException | None] = []
    for module in (step_loop, oom_recovery):
        monkeypatch.setattr(module, "free_cache", lambda _: handled.append(sys.exc_info()[1]))
    fault = raising(("denoise", 2, 2), ("vae_decode", 1, 1), error=no_memory)
    loop = StepLoop(sd, batch_limit=2, fault=fault)
    loop.add("a", replace(REQUEST, num_images=2))

    drained(loop)

    assert handled == [None, None, None]
