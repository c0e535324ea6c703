import sys
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from itertools import count, islice
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from service.diffusion import step_loop
from service.diffusion.batch import predict
from service.diffusion.generation import (
    GenerationRequest,
    JobCancelled,
    JobFailed,
    JobFinished,
    Outcome,
    OutOfMemoryHit,
    Picture,
    Stepped,
)
from service.diffusion.load import Model
from service.diffusion.row import Row
from service.diffusion.step_loop import Fault, StepLoop

REQUEST = GenerationRequest(prompt="a cat", width=16, height=16, steps=4, seed=5)


def drained(loop: StepLoop) -> list[Outcome]:
    """Step until nothing is left to do."""
    found: list[Outcome] = []
    while loop.busy:
        found += loop.step()
    return found


def of(kind: type[Any], outcomes: list[Outcome]) -> list[Any]:
    """Pick the outcomes of one kind."""
    return [outcome for outcome in outcomes if isinstance(outcome, kind)]


def raising(*raises: tuple[str, int, int], error: Callable[[], Exception]) -> Fault:
    """Return a fault that raises at a stage, for at least so many pictures, so many times."""
    left = {(stage, pictures): times for stage, pictures, times in raises}

    def fault(stage: str, pictures: int) -> None:
        for (where, least), times in left.items():
            if stage == where and pictures >= least and times > 0:
                left[where, least] -= 1
                raise error()

    return fault


def no_memory() -> Exception:
    """Make the error that a full GPU raises."""
    return torch.OutOfMemoryError("CUDA out of memory.")


def test_one_request(sd: Model) -> None:
    """A request is told about at every step and ends with its picture."""
    loop = StepLoop(sd, batch_limit=3)
    loop.add("a", REQUEST)

    *steps, finished = drained(loop)

    assert [outcome.progress for outcome in of(Stepped, steps)] == [
        {"a": 1},
        {"a": 2},
        {"a": 3},
        {"a": 4},
    ]
    assert {(s.batch_size, s.pixels) for s in of(Stepped, steps)} == {(1, 256)}
    assert isinstance(finished, JobFinished)
    assert (finished.job_id, finished.prompt_tokens_cut) == ("a", 0)
    (picture,) = finished.pictures
    assert (picture.width, picture.height, picture.seed) == (16, 16, 5)
    assert len(picture.pixels) == 16 * 16 * 3
    assert not loop.busy


def test_times_add_up(sd: Model) -> None:
    """Shared steps are divided: what two jobs paid for denoising is what the steps took."""
    loop = StepLoop(sd, batch_limit=3)
    loop.add("a", REQUEST)
    loop.add("b", replace(REQUEST, steps=2))

    outcomes = drained(loop)

    paid = sum(finished.times.denoise for finished in of(JobFinished, outcomes))
    assert paid == pytest.approx(sum(stepped.seconds for stepped in of(Stepped, outcomes)))
    assert all(finished.times.text_encode > 0 for finished in of(JobFinished, outcomes))
    assert all(finished.times.vae_decode > 0 for finished in of(JobFinished, outcomes))


def test_requests_join_and_leave_between_steps(sd: Model) -> None:
    """A second request moves from the very next step on, and leaves without the first."""
    loop = StepLoop(sd, batch_limit=3)
    loop.add("a", REQUEST)
    loop.step()
    loop.add("b", replace(REQUEST, steps=2, sampler="ddim", guidance_scale=1.0))

    outcomes = drained(loop)

    assert [stepped.progress for stepped in of(Stepped, outcomes)] == [
        {"a": 2, "b": 1},
        {"a": 3, "b": 2},
        {"a": 4},
    ]
    assert [finished.job_id for finished in of(JobFinished, outcomes)] == ["b", "a"]


@pytest.mark.parametrize("sampler", ["heun", "pndm"])
def test_progress_counts_asked_for_steps(sd: Model, sampler: str) -> None:
    """A sampler that asks the UNet more often than once per step still ends at its steps."""
    loop = StepLoop(sd, batch_limit=1)
    loop.add("a", replace(REQUEST, sampler=sampler))

    progress = [stepped.progress["a"] for stepped in of(Stepped, drained(loop))]

    assert progress == sorted(progress)
    assert (progress[0], progress[-1]) == (0, 4)


def test_batch_limit(sd: Model) -> None:
    """No step moves more pictures than the limit; the others follow as places get free."""
    loop = StepLoop(sd, batch_limit=2)
    for name in "abc":
        loop.add(name, REQUEST)

    outcomes = drained(loop)

    assert [stepped.batch_size for stepped in of(Stepped, outcomes)] == [2] * 4 + [1] * 4
    assert [finished.job_id for finished in of(JobFinished, outcomes)] == ["a", "b", "c"]


def test_pictures_of_one_request(sd: Model) -> None:
    """Each picture has a seed of its own, and is the picture of that seed asked for alone."""
    together, single = StepLoop(sd, batch_limit=4), StepLoop(sd, batch_limit=4)
    together.add("a", replace(REQUEST, num_images=3, seed=2**32 - 2))
    single.add("a", replace(REQUEST, seed=0))

    pictures = drained(together)[-1].pictures  # type: ignore[union-attr]

    assert [picture.seed for picture in pictures] == [2**32 - 2, 2**32 - 1, 0]
    assert close(pictures[2], drained(single)[-1].pictures[0])  # type: ignore[union-attr]
    assert not close(pictures[0], pictures[1])


def close(one: Picture, other: Picture) -> bool:
    """Tell whether two pictures are the same up to rounding."""
    a, b = (np.frombuffer(picture.pixels, np.uint8).astype(int) for picture in (one, other))
    return float((np.abs(a - b) <= 1).mean()) >= 0.999


def test_decoding_does_not_hold_up_the_others(sd: Model) -> None:
    """Between two decodes the pictures that still move get a step."""
    loop = StepLoop(sd, batch_limit=4)
    loop.add("a", replace(REQUEST, num_images=2, steps=1))
    loop.add("b", replace(REQUEST, steps=3))

    kinds = [[type(outcome).__name__ for outcome in loop.step()] for _ in range(4)]

    assert kinds == [["Stepped"], [], ["Stepped"], ["JobFinished"]]


def test_cancel(sd: Model) -> None:
    """A cancelled job takes part in no further step, and its place is free at once."""
    loop = StepLoop(sd, batch_limit=1)
    loop.add("a", REQUEST)
    loop.add("b", REQUEST)
    loop.step()

    loop.cancel("a")
    outcomes = loop.step()

    assert outcomes[0] == JobCancelled(job_id="a", steps_done=1)
    assert [stepped.progress for stepped in of(Stepped, outcomes)] == [{"b": 1}]
    assert all("a" not in stepped.progress for stepped in of(Stepped, drained(loop)))


def test_cancel_of_the_last_job(sd: Model) -> None:
    """The loop stays busy until the cancel is reported."""
    loop = StepLoop(sd, batch_limit=1)
    loop.add("a", REQUEST)
    loop.cancel("a")
    loop.cancel("unknown")

    assert drained(loop) == [JobCancelled(job_id="a")]
    assert loop.step() == []


def test_long_prompt(sd: Model) -> None:
    """What the text encoder cannot read is counted."""
    loop = StepLoop(sd, batch_limit=1)
    loop.add("a", replace(REQUEST, prompt="x " * 80))

    assert drained(loop)[-1].prompt_tokens_cut == 5  # type: ignore[union-attr]


def test_batch_that_does_not_fit(sd: Model) -> None:
    """Pictures that do not fit together are made one by one, and later in smaller batches."""
    loop = StepLoop(sd, batch_limit=4, fault=raising(("denoise", 3, 1), error=no_memory))
    for name in "abcd":
        loop.add(name, REQUEST)

    outcomes = drained(loop)

    assert of(OutOfMemoryHit, outcomes) == [
        OutOfMemoryHit(stage="denoise", batch_size=4, rung="split_batch")
    ]
    assert {finished.job_id for finished in of(JobFinished, outcomes)} == set("abcd")
    assert [stepped.batch_size for stepped in of(Stepped, outcomes)] == [4] + [2] * 6


def test_picture_that_never_fits(sd: Model) -> None:
    """A picture that does not fit even alone fails with advice; its batch-mates go on."""
    # The batch, then the first picture alone.
    fault = raising(("denoise", 2, 1), ("denoise", 1, 1), error=no_memory)
    loop = StepLoop(sd, batch_limit=2, fault=fault)
    loop.add("a", REQUEST)
    loop.add("b", REQUEST)

    outcomes = drained(loop)

    assert [(hit.batch_size, hit.rung) for hit in of(OutOfMemoryHit, outcomes)] == [
        (2, "split_batch"),
        (1, "fail"),
    ]
    (failed,) = of(JobFailed, outcomes)
    assert (failed.job_id, failed.code) == ("a", "out_of_memory")
    assert "16x16" in failed.detail
    assert "smaller size" in failed.detail
    assert [finished.job_id for finished in of(JobFinished, outcomes)] == ["b"]


@pytest.mark.parametrize("stage", ["text_encode", "denoise", "vae_decode"])
def test_memory_that_comes_back(sd: Model, stage: str) -> None:
    """Every stage is tried again once after the cache was freed."""
    loop = StepLoop(sd, batch_limit=1, fault=raising((stage, 1, 1), error=no_memory))
    loop.add("a", REQUEST)

    outcomes = drained(loop)

    assert of(OutOfMemoryHit, outcomes) == [
        OutOfMemoryHit(stage=stage, batch_size=1, rung="free_cache")
    ]
    assert [finished.job_id for finished in of(JobFinished, outcomes)] == ["a"]


@pytest.mark.parametrize("stage", ["text_encode", "denoise", "vae_decode"])
def test_memory_that_does_not_come_back(sd: Model, stage: str) -> None:
    """A job that finds no memory twice fails, whichever stage it is at."""
    loop = StepLoop(sd, batch_limit=1, fault=raising((stage, 1, 2), error=no_memory))
    loop.add("a", REQUEST)

    outcomes = drained(loop)

    assert of(OutOfMemoryHit, outcomes) == [
        OutOfMemoryHit(stage=stage, batch_size=1, rung=rung) for rung in ("free_cache", "fail")
    ]
    assert [failed.code for failed in of(JobFailed, outcomes)] == ["out_of_memory"]
    assert not of(JobFinished, outcomes)


def test_lost_work_is_told_apart_from_work(sd: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time of an attempt that ran out of memory is in its own report, in no job's times."""
    clock = count()
    monkeypatch.setattr(step_loop, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    left = [MemoryError()]

    def slow(stage: str, _pictures: int) -> None:
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


def test_a_cancelled_job_tells_what_it_had_cost(sd: Model) -> None:
    """Its stages so far, for the books."""
    loop = StepLoop(sd, batch_limit=1)
    loop.add("a", REQUEST)
    loop.step()
    loop.cancel("a")

    (cancelled,) = of(JobCancelled, drained(loop))

    assert cancelled.times.text_encode > 0
    assert cancelled.times.denoise > 0


def test_freed_only_after_the_error_is_gone(sd: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache is freed when no traceback holds on to the tensors that did not fit."""
    handled: list[BaseException | None] = []
    monkeypatch.setattr(step_loop, "free_cache", lambda _device: handled.append(sys.exc_info()[1]))
    fault = raising(("denoise", 1, 1), ("vae_decode", 1, 1), error=no_memory)
    loop = StepLoop(sd, batch_limit=1, fault=fault)
    loop.add("a", REQUEST)

    drained(loop)

    assert handled == [None, None]


def test_error_of_a_batch_is_traced_to_its_row(sd: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that the UNet cannot take fails its own job and no other."""

    def unlucky(model: Model, rows: list[Row]) -> list[torch.Tensor]:
        if any(row.seed == 13 for row in rows):
            raise ValueError("unlucky\nsecond line")
        return predict(model, rows)

    monkeypatch.setattr(step_loop, "predict", unlucky)
    loop = StepLoop(sd, batch_limit=3)
    loop.add("a", REQUEST)
    loop.add("b", replace(REQUEST, seed=12, num_images=2))
    loop.add("c", REQUEST)

    outcomes = drained(loop)

    assert of(JobFailed, outcomes) == [
        JobFailed(job_id="b", code="generation_failed", detail="ValueError: unlucky")
    ]
    assert [finished.job_id for finished in of(JobFinished, outcomes)] == ["a", "c"]
    assert not of(OutOfMemoryHit, outcomes)
    after = outcomes[outcomes.index(of(JobFailed, outcomes)[0]) :]
    assert all("b" not in stepped.progress for stepped in of(Stepped, after))


def test_more_steps_than_a_sampler_has(sd: Model) -> None:
    """A request that its sampler refuses fails alone and is told what it may ask for."""
    loop = StepLoop(sd, batch_limit=2)
    loop.add("a", replace(REQUEST, sampler="lcm", steps=60))
    loop.add("b", REQUEST)

    outcomes = drained(loop)

    assert of(JobFailed, outcomes) == [
        JobFailed(
            job_id="a", code="generation_failed", detail="Sampler lcm takes at most 50 steps."
        )
    ]
    assert [finished.job_id for finished in of(JobFinished, outcomes)] == ["b"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_latents_that_are_no_numbers(
    sd: Model, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    """NaN and infinity are an error that names them, never a black picture."""
    advance = Row.advance
    monkeypatch.setattr(
        Row,
        "advance",
        lambda row, prediction: advance(row, prediction * (value if row.seed == 13 else 1.0)),
    )
    loop = StepLoop(sd, batch_limit=2)
    loop.add("a", replace(REQUEST, seed=13))
    loop.add("b", REQUEST)

    outcomes = drained(loop)

    (failed,) = of(JobFailed, outcomes)
    assert (failed.job_id, failed.code) == ("a", "generation_failed")
    assert "NaN or infinite" in failed.detail
    assert [finished.job_id for finished in of(JobFinished, outcomes)] == ["b"]


def test_lost_device(sd: Model) -> None:
    """An error that leaves the GPU unusable is not swallowed: the process has to end."""
    lost = raising(
        ("denoise", 1, 1),
        error=lambda: RuntimeError("CUDA error: an illegal memory access was encountered"),
    )
    loop = StepLoop(sd, batch_limit=1, fault=lost)
    loop.add("a", REQUEST)

    with pytest.raises(RuntimeError, match="illegal memory access"):
        drained(loop)


def test_prompts_stay_out_of_the_log(sd: Model, capsys: pytest.CaptureFixture[str]) -> None:
    """A failure is logged with its place in the code, without what was asked for."""
    fault = raising(("denoise", 1, 2), error=lambda: ValueError("broken"))
    loop = StepLoop(sd, batch_limit=1, fault=fault)
    loop.add("a", replace(REQUEST, prompt="my secret"))

    drained(loop)

    printed = "".join(capsys.readouterr())
    assert "generation_failed" in printed
    assert "step_loop.py" in printed
    assert "secret" not in printed
