from dataclasses import replace
from typing import Any

import pytest
import torch

from service.core.sampler import Sampler
from service.core.spec import GenerationSpec
from service.diffusion.conditioning.encoding import Conditioning, TextEmbedding
from service.diffusion.load import Model
from service.diffusion.loop.row import Row
from service.diffusion.loop.starts.base import TextStart
from service.errors import SamplerUnsuitable

REQUEST = GenerationSpec(prompt="a cat", width=32, height=16, steps=4, seed=5)
ALL = pytest.mark.parametrize("sampler", Sampler)


def row(model: Model, request: GenerationSpec = REQUEST, *, texts: int = 1) -> Row:
    """Make a row without asking a text encoder."""
    embedding = TextEmbedding(states=torch.zeros(1, 77, 32))
    return Row(
        model,
        model.samplers.new(request.sampler, request.steps),
        TextStart(request),
        request.seed,
        Conditioning(texts=(embedding,) * texts),
    )


@ALL
def test_noise_is_that_of_diffusers(sd: Model, sampler: str) -> None:
    """The first latents are those that the pipeline prepares from the same seed."""
    request = replace(REQUEST, sampler=sampler)
    pipeline: Any = sd.family.pipeline
    kept, pipeline.scheduler = pipeline.scheduler, sd.samplers.new(sampler, request.steps)
    noise = pipeline.prepare_latents(
        1, 4, 16, 32, torch.float32, sd.device, torch.Generator("cpu").manual_seed(5)
    )
    pipeline.scheduler = kept

    assert torch.equal(noise, row(sd, request).latents)


def test_guidance(sd: Model) -> None:
    """The prediction moves from the negative prompt's towards and beyond the prompt's."""
    guided = row(sd, replace(REQUEST, guidance_scale=3.0), texts=2)
    plain = row(sd, REQUEST)
    negative, positive = torch.randn(2, 1, 4, 8, 16, generator=torch.Generator().manual_seed(1))

    guided.advance(torch.cat([negative, positive]))
    plain.advance(negative + 3.0 * (positive - negative))

    assert (guided.guided, plain.guided) == (True, False)
    assert torch.equal(plain.latents, guided.latents)


@ALL
def test_position(sd: Model, sampler: str) -> None:
    """A row counts down to 0 evaluations and up to the steps that were asked for."""
    one = row(sd, replace(REQUEST, sampler=sampler))
    assert (one.steps_done, one.pixels) == (0, 512)

    while one.evaluations_left:
        one.advance(one.model_input())

    assert one.steps_done == 4


@ALL
def test_only_scalars_cross_to_the_device(sd: Model, sampler: str) -> None:
    """Timesteps and sigmas stay on the CPU: no step has to wait for the device to read them.

    The device that computes nothing refuses every operation with a CPU tensor but scalars.
    """
    one = row(replace(sd, device=torch.device("meta")), replace(REQUEST, sampler=sampler))

    while one.evaluations_left:
        assert one.timestep.device.type == "cpu"
        one.advance(torch.empty_like(one.model_input()))

    assert one.latents.device.type == "meta"


def test_too_many_steps(sd: Model) -> None:
    """LCM has no more steps than it was distilled with, and the message says how many."""
    with pytest.raises(SamplerUnsuitable, match="lcm cannot take 51 steps with this model"):
        row(sd, replace(REQUEST, sampler="lcm", steps=51))
