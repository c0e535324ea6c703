from dataclasses import replace
from itertools import chain, repeat
from typing import Any

import pytest
import structlog

from service.core.capacity import Capacity
from service.core.events import JobFinished, OutOfMemoryHit, StepBaseline, Stepped
from service.core.sampler import Sampler
from service.core.spec import GenerationSpec
from service.core.stage import OomRung, Stage
from service.diffusion.conditioning.encoding import Conditioning
from service.diffusion.load import Model
from service.diffusion.loop.step_loop import StepLoop
from service.diffusion.loop.trials.warm_up import warm_up
from service.errors import ModelUnsuitable
from tests.unit.diffusion.step_loops import drained, no_memory, raising


def test_memory_is_known_before_the_first_request(sd: Model) -> None:
    """Two sizes are made, and every stage of them is measured."""
    loop = StepLoop(sd, batch_limit=3)

    *_, capacity = warm_up(loop, size=16, batch_limit=3)

    assert isinstance(capacity, Capacity)
    assert capacity.available > 0
    assert set(capacity.needs) == {Stage.VAE_ENCODE, Stage.DENOISE, Stage.VAE_DECODE}
    assert capacity.fits(16 * 16)
    assert len(loop.memory_model._lines[Stage.DENOISE].seen) >= 2


def test_the_first_image_is_not_counted(sd: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes what is taken once in the life of a process, as kernels and buffers are."""
    loop = StepLoop(sd, batch_limit=1)
    figures = chain([10**9, 10**9], repeat(1000))
    monkeypatch.setattr(loop.meter, "taken", lambda: next(figures))

    *_, capacity = warm_up(loop, size=16, batch_limit=1)

    assert isinstance(capacity, Capacity)
    assert max(capacity.need(16 * 16).values()) < 10**6


def test_steps_are_measured(sd: Model) -> None:
    """But for the first one, which loads kernels."""
    told = warm_up(StepLoop(sd, batch_limit=3), size=16, batch_limit=3)
    usual = [each for each in told if isinstance(each, StepBaseline)]
    assert [(each.pixels, each.images) for each in usual] == [(256, 1), (512, 2)]
    assert all(each.seconds > 0 for each in usual)


@pytest.mark.parametrize(
    ("large", "pixels"), [(None, 16 * 32), (8, 16 * 32), (16, 16 * 32), (32, 32 * 32)]
)
def test_images_of_the_usual_size_are_measured(sd: Model, large: int | None, pixels: int) -> None:
    """Most requests have it; where it is no larger than the smallest, there is another."""
    told = warm_up(StepLoop(sd, batch_limit=3), size=16, large=large, batch_limit=3)
    usual = [each for each in told if isinstance(each, StepBaseline)]
    assert [(each.pixels, each.images) for each in usual] == [(256, 1), (pixels, 2)]


def test_it_leaves_no_trace(sd: Model) -> None:
    """The first request is the first of which anything is heard, and gets the same image."""
    request = GenerationSpec(prompt="a cat", width=16, height=16, steps=2, seed=3)
    cold, warm = StepLoop(sd, batch_limit=1), StepLoop(sd, batch_limit=1)

    warm_up(warm, size=16, batch_limit=1)

    assert not warm.busy
    images = []
    for loop in (cold, warm):
        loop.add("a", request)
        *steps, finished = drained(loop)
        assert [type(step) for step in steps] == [Stepped] * 2
        assert isinstance(finished, JobFinished)
        images.append(finished.images)
    assert images[0] == images[1]


def test_faults_on_purpose_are_for_requests(sd: Model) -> None:
    """A drill that counts faults does not lose them to the warm-up."""
    loop = StepLoop(sd, batch_limit=1, fault=raising((Stage.DENOISE, 1, 1), error=no_memory))

    warm_up(loop, size=16, batch_limit=1)
    loop.add("a", GenerationSpec(prompt="a cat", width=16, height=16, steps=1))

    assert any(isinstance(outcome, OutOfMemoryHit) for outcome in drained(loop))


def test_each_trial_image_is_a_line_of_the_log(sd: Model) -> None:
    """They may take half a minute each, and an operator wants to see that something happens."""
    with structlog.testing.capture_logs() as lines:
        warm_up(StepLoop(sd, batch_limit=3), size=16, batch_limit=3)
    ended = [line for line in lines if line["event"] == "trial_image_ended"]
    assert [(line["image"], line["images"], line["width"]) for line in ended] == [
        (1, 3, 16),
        (2, 3, 16),
        (3, 3, 32),
    ]
    assert {line["model_id"] for line in ended} == {sd.info.model_id}


def test_model_that_fails(sd: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is logged; that memory ran out is told; the service starts."""
    loop = StepLoop(sd, batch_limit=1)

    def broken(*_: object, **__: object) -> None:
        raise no_memory()

    monkeypatch.setattr(sd.family, "condition", broken)
    with structlog.testing.capture_logs() as lines:
        told = warm_up(loop, size=16, batch_limit=1)

    assert [line["code"] for line in lines if line["event"] == "warm_up_failed"] == [
        "out_of_memory"
    ] * 3
    assert OutOfMemoryHit(stage=Stage.TEXT_ENCODE, batch_size=1, rung=OomRung.FAIL) in told
    monkeypatch.undo()
    loop.add("a", GenerationSpec(prompt="a cat", width=16, height=16, steps=1))
    assert isinstance(drained(loop)[-1], JobFinished)


def test_a_model_that_can_never_draw(sd: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three images that fail for another reason than memory end the start."""
    loop = StepLoop(sd, batch_limit=1)

    def broken(*_: object, **__: object) -> None:
        raise ValueError("mat1 and mat2\nshapes cannot be multiplied")

    monkeypatch.setattr(sd.family, "condition", broken)
    with pytest.raises(ModelUnsuitable, match=r"all 3 trial images failed \(ValueError: mat1"):
        warm_up(loop, size=16, batch_limit=1)


def test_two_failures_are_not_three(sd: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that draws one of the trial images is kept."""
    loop = StepLoop(sd, batch_limit=1)
    real = sd.family.condition
    left = [ValueError("once"), ValueError("twice")]

    def hesitant(*given: Any, **named: Any) -> Conditioning:
        if left:
            raise left.pop()
        return real(*given, **named)

    monkeypatch.setattr(sd.family, "condition", hesitant)
    warm_up(loop, size=16, batch_limit=1)

    assert not left


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_weights_that_are_no_numbers(sd: Model, part: str) -> None:
    """In float32 no number format is to blame: the error names the weight."""
    *_, weight = getattr(sd.family.pipeline, part).parameters()
    kept = weight.detach().clone()
    weight.data.fill_(float("nan"))
    try:
        with pytest.raises(ModelUnsuitable, match=rf"\w of the {part} holds NaN .* another copy"):
            warm_up(StepLoop(sd, batch_limit=1), size=16, batch_limit=1)
    finally:
        weight.data.copy_(kept)


def test_a_sampler_that_the_model_can_be_drawn_with(sd: Model) -> None:
    """The trial images take the usual sampler, or one that can take the fewest steps."""
    only = {Sampler.DPMPP_2M: (), Sampler.EULER: ((3, 5),), Sampler.DDIM: ((2, 9),)}

    loop = StepLoop(replace(sd, info=replace(sd.info, samplers=only)), batch_limit=1)
    taken = [
        each for each in warm_up(loop, size=16, batch_limit=1) if isinstance(each, StepBaseline)
    ]

    assert len(taken) == 4  # Two counted images of two steps each.
