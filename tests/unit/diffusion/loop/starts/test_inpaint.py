"""Starts with a mask, and those of models whose UNet takes one."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from service.core.events import JobFailed, JobFinished
from service.core.inputs import EngineInputs
from service.core.spec import GenerationSpec
from service.diffusion.load import Model
from service.diffusion.loop.starts.base import Kept, TextStart
from service.diffusion.loop.starts.choice import for_model, start_of
from service.diffusion.loop.starts.image import ImageStart
from service.diffusion.loop.starts.inpaint import InpaintStart, WholeStart
from service.diffusion.loop.step_loop import StepLoop
from tests.support.parity import gallery
from tests.unit.diffusion.step_loops import drained, of

REQUEST = GenerationSpec(
    prompt="a cat",
    width=32,
    height=16,
    steps=5,
    seed=5,
    strength=1.0,
    image=gallery.reference(1),
    mask=gallery.reference(2),
)
IMAGE = replace(REQUEST, mask=None)
TEXT = replace(IMAGE, image=None)


@pytest.mark.parametrize(
    ("kind", "request_", "expected"),
    [
        ("sd", TEXT, TextStart),
        ("sd", IMAGE, ImageStart),
        ("sd", REQUEST, InpaintStart),
        ("inpaint", TEXT, WholeStart),
        ("inpaint", IMAGE, WholeStart),
        ("inpaint", REQUEST, InpaintStart),
    ],
)
def test_the_request_and_the_model_decide(
    model: Callable[[str], Model], kind: str, request_: GenerationSpec, expected: type
) -> None:
    """A model for inpainting is given a mask with every request."""
    assert type(start_of(request_, gallery.engine_inputs(request_), model(kind))) is expected


@pytest.mark.parametrize(
    ("strength", "nine", "encoded"),
    [(1.0, False, 1), (0.5, False, 1), (1.0, True, 1), (0.5, True, 2)],
)
def test_only_what_is_needed_is_encoded(strength: float, nine: bool, encoded: int) -> None:
    """Of a model with nine channels the part that is kept, and the image if any of it is left."""
    request = replace(REQUEST, strength=strength)
    inputs = EngineInputs(image=b"\xff" * (32 * 16 * 3), mask=(b"\x7f" * 16 + b"\x80" * 16) * 16)

    found = InpaintStart(request, inputs, nine).images()

    assert len(found) == encoded
    if nine:
        assert bool((found[-1][..., :16] == 1).all())
        assert bool((found[-1][..., 16:] == 0).all())


def test_a_mask_of_another_size_ends_its_job_alone(sd: Model) -> None:
    """The others go on."""
    loop = StepLoop(sd, batch_limit=4)
    wrong = EngineInputs(image=bytes(32 * 16 * 3), mask=bytes(7))
    loop.add("wrong", REQUEST, inputs=wrong)
    loop.add("without", REQUEST)
    loop.add("right", REQUEST, inputs=gallery.engine_inputs(REQUEST))

    outcomes = drained(loop)

    assert {each.job_id: each.code for each in of(JobFailed, outcomes)} == dict.fromkeys(
        ("wrong", "without"), "generation_failed"
    )
    assert [each.job_id for each in of(JobFinished, outcomes)] == ["right"]


def test_an_unfinished_image_is_kept_outside_of_the_mask(sd: Model) -> None:
    """A job that is interrupted has the latents of the input there, without their noise."""
    loop = StepLoop(sd, batch_limit=1)
    loop.add("a", REQUEST, inputs=gallery.engine_inputs(REQUEST))
    loop.step()
    loop.step()
    (sample,) = loop._tasks["a"].samples
    assert sample.row is not None
    kept = sample.row._kept
    assert kept is not None
    outside = (kept.mask == 0).expand_as(kept.clean)
    assert 0 < int(outside.sum()) < outside.numel()

    estimate = sample.row.estimate()

    assert torch.equal(estimate[outside], kept.clean[outside])
    assert not torch.equal(estimate[~outside], kept.clean[~outside])
    loop.interrupt("a")
    (finished,) = of(JobFinished, drained(loop))
    assert finished.interrupted_after == 2


def test_what_is_kept_ends_without_noise() -> None:
    """After the last step there is no following timestep."""
    mask = torch.tensor([[[[1.0, 0.0]]]])
    kept = Kept(mask, clean=torch.full((1, 1, 1, 2), 2.0), noise=torch.ones(1, 1, 1, 2))

    assert kept.put_back(torch.full((1, 1, 1, 2), 5.0)).flatten().tolist() == [5.0, 2.0]


def test_a_later_pass_of_a_model_for_inpainting(model: Callable[[str], Model]) -> None:
    """Any start is completed; that of an ordinary model stays as it is."""
    start = TextStart(TEXT)

    assert for_model(start, model("sd")) is start
    assert for_model(start, model("inpaint")) == WholeStart(TEXT, start)
