"""Guidance that is rescaled, and samplers that take new noise: as diffusers has both."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from service.core.sampler import ETA
from service.core.spec import GenerationSpec
from service.diffusion.load import Model
from service.diffusion.loop.guidance import rescaled
from service.errors import SamplerUnsuitable
from tests.support.parity import comparison
from tests.support.parity.references import Reference

REQUEST = GenerationSpec(
    prompt="a cat", negative_prompt="a dog", width=32, height=32, steps=6, seed=5, sampler="euler"
)
CHANGES = (
    {"guidance_rescale": 0.7, "guidance_scale": 25.0},
    {"guidance_rescale": 1.0, "guidance_scale": 15.0},
    {"guidance_rescale": 0.6, "guidance_scale": 30.0, "num_images": 2},
    {"eta": 0.5, "sampler": "ddim"},
    {"eta": 0.9, "sampler": "ddim", "guidance_rescale": 0.7},
)


@pytest.mark.parametrize("kind", ["sd", "sdxl", "zero_snr"])
@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_images_are_those_of_diffusers(
    model: Callable[[str], Model],
    folder: Callable[[str], Path],
    kind: str,
    change: dict[str, float],
) -> None:
    """Alone and in company, at least 99.9 % of the values within one level."""
    request, reference = replace(REQUEST, **change), Reference(folder(kind))  # type: ignore[arg-type]
    theirs = reference.images(request)
    for ours in (
        comparison.alone(model(kind), request),
        comparison.in_company(model(kind), request),
    ):
        found = comparison.difference(ours, theirs)
        assert found.same, found
    plain = reference.images(replace(request, guidance_rescale=0, eta=0))
    assert not comparison.difference(plain, theirs).same


def test_without_guidance_there_is_nothing_to_rescale(sd: Model) -> None:
    """The image is the same, as it is in diffusers."""
    request = replace(REQUEST, guidance_scale=1.0)
    assert all(
        (ours == theirs).all()
        for ours, theirs in zip(
            comparison.alone(sd, request),
            comparison.alone(sd, replace(request, guidance_rescale=1.0)),
            strict=True,
        )
    )


def test_a_share_of_one_gives_the_contrast_of_the_prompt() -> None:
    """The mean of the guided prediction is scaled with it: only the spread is promised."""
    torch.manual_seed(0)
    prompt, guided = torch.randn(1, 4, 8, 8), 3 * torch.randn(1, 4, 8, 8)
    assert torch.isclose(rescaled(guided, prompt, 1.0).std(), prompt.std())
    assert rescaled(guided, prompt, 0.0) is guided


def test_new_noise_that_a_model_cannot_take_is_refused_before_any_work(
    model: Callable[[str], Model],
) -> None:
    """With pure noise at the start and an eta of 1 diffusers takes a root of less than nothing."""
    request = replace(REQUEST, sampler="ddim", eta=1.0)
    found = comparison.together(model("zero_snr"), {"a": request})["a"]
    assert found.failure is not None
    assert (found.failure.code, found.steps) == (SamplerUnsuitable.code, 0)
    assert "Lower eta" in found.failure.detail


def test_samplers_that_take_eta_are_those_of_the_table(sd: Model) -> None:
    """Each draws another image with it, and no other sampler does."""
    for sampler in ETA:
        request = replace(REQUEST, sampler=sampler)
        changed = comparison.alone(sd, replace(request, eta=1.0))
        assert not comparison.difference(comparison.alone(sd, request), changed).same
