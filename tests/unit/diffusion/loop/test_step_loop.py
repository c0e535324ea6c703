from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from service.core.events import JobCancelled, JobFailed, JobFinished, OutOfMemoryHit, Stepped
from service.core.image import RawImage
from service.core.spec import GenerationSpec
from service.diffusion.load import Model
from service.diffusion.loop.row import Row
from service.diffusion.loop.step_loop import StepLoop
from tests.unit.diffusion.step_loops import drained, of, raising

REQUEST = GenerationSpec(prompt="a cat", width=16, height=16, steps=4, seed=5)


def test_one_request(sd: Model) -> None:
    """A request is told about at every step and ends with its image."""
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
    (image,) = finished.images
    assert (image.width, image.height, image.seed) == (16, 16, 5)
    assert len(image.pixels) == 16 * 16 * 3
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
    """No step moves more images than the limit; the others follow as places get free."""
    loop = StepLoop(sd, batch_limit=2)
    for name in "abc":
        loop.add(name, REQUEST)

    outcomes = drained(loop)

    assert [stepped.batch_size for stepped in of(Stepped, outcomes)] == [2] * 4 + [1] * 4
    assert [finished.job_id for finished in of(JobFinished, outcomes)] == ["a", "b", "c"]


def test_images_of_one_request(sd: Model) -> None:
    """Each image has a seed of its own, and is the image of that seed asked for alone."""
    together, single = StepLoop(sd, batch_limit=4), StepLoop(sd, batch_limit=4)
    together.add("a", replace(REQUEST, num_images=3, seed=2**32 - 2))
    single.add("a", replace(REQUEST, seed=0))

    images = drained(together)[-1].images  # type: ignore[union-attr]

    assert [image.seed for image in images] == [2**32 - 2, 2**32 - 1, 0]
    assert close(images[2], drained(single)[-1].images[0])  # type: ignore[union-attr]
    assert not close(images[0], images[1])


def close(one: RawImage, other: RawImage) -> bool:
    """Tell whether two images are the same up to rounding."""
    a, b = (np.frombuffer(image.pixels, np.uint8).astype(int) for image in (one, other))
    return float((np.abs(a - b) <= 1).mean()) >= 0.999


def test_decoding_does_not_hold_up_the_others(sd: Model) -> None:
    """Between two decodes the images that still move get a step."""
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

    assert outcomes[0] == JobCancelled(job_id="a", epoch=1, steps_done=1)
    assert [stepped.progress for stepped in of(Stepped, outcomes)] == [{"b": 1}]
    assert all("a" not in stepped.progress for stepped in of(Stepped, drained(loop)))


def test_cancel_of_the_last_job(sd: Model) -> None:
    """The loop stays busy until the cancel is reported."""
    loop = StepLoop(sd, batch_limit=1)
    loop.add("a", REQUEST)
    loop.cancel("a")
    loop.cancel("unknown")

    assert drained(loop) == [JobCancelled(job_id="a", epoch=1)]
    assert loop.step() == []


def test_long_prompt(sd: Model) -> None:
    """What the text encoder cannot read is counted."""
    loop = StepLoop(sd, batch_limit=1)
    loop.add("a", replace(REQUEST, prompt="x " * 80))

    assert drained(loop)[-1].prompt_tokens_cut == 5  # type: ignore[union-attr]


def test_a_cancelled_job_tells_what_it_had_cost(sd: Model) -> None:
    """Its stages so far, for the books."""
    loop = StepLoop(sd, batch_limit=1)
    loop.add("a", REQUEST)
    loop.step()
    loop.cancel("a")

    (cancelled,) = of(JobCancelled, drained(loop))

    assert cancelled.times.text_encode > 0
    assert cancelled.times.denoise > 0


def test_error_of_a_batch_is_traced_to_its_row(sd: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that the UNet cannot take fails its own job and no other."""
    denoise: Callable[[list[Row]], list[torch.Tensor]] = sd.family.denoise

    def unlucky(rows: list[Row]) -> list[torch.Tensor]:
        if any(row.seed == 13 for row in rows):
            raise ValueError("unlucky\nsecond line")
        return denoise(rows)

    monkeypatch.setattr(sd.family, "denoise", unlucky)
    loop = StepLoop(sd, batch_limit=3)
    loop.add("a", REQUEST)
    loop.add("b", replace(REQUEST, seed=12, num_images=2))
    loop.add("c", REQUEST)

    outcomes = drained(loop)

    assert of(JobFailed, outcomes) == [
        JobFailed(job_id="b", epoch=1, code="generation_failed", detail="ValueError: unlucky")
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

    (failure,) = of(JobFailed, outcomes)
    assert (failure.job_id, failure.code) == ("a", "sampler_unsuitable")
    assert "The sampler lcm cannot take 60 steps with this model" in failure.detail
    assert [finished.job_id for finished in of(JobFinished, outcomes)] == ["b"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_latents_that_are_no_numbers(
    sd: Model, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    """NaN and infinity are an error that names them, never a black image."""
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
