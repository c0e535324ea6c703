from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from service.core.inputs import EngineInputs, InputImage
from service.core.spec import GenerationSpec
from service.diffusion.load import Model
from service.diffusion.loop.noise import Noise
from service.diffusion.loop.starts.base import TextStart
from service.diffusion.loop.starts.choice import start_of
from service.diffusion.loop.starts.image import ImageStart, LatentStart, picture
from service.errors import GenerationFailed

REQUEST = GenerationSpec(
    prompt="a cat",
    width=32,
    height=16,
    steps=8,
    seed=5,
    image=InputImage(digest="0" * 64, width=32, height=16),
    strength=0.5,
)
INPUTS = EngineInputs(image=bytes(range(256)) * 6)


@pytest.mark.parametrize("sampler", ["euler", "heun", "ddim", "pndm"])
@pytest.mark.parametrize(("strength", "steps"), [(0.5, 4), (0.3, 2), (1.0, 8)])
def test_the_last_steps_are_done(sd: Model, sampler: str, strength: float, steps: int) -> None:
    """As many as the strength leaves, rounded down, and the scheduler knows where they begin."""
    start = ImageStart(replace(REQUEST, strength=strength), INPUTS)
    scheduler = sd.samplers.new(sampler, 8)
    skipped = (8 - steps) * scheduler.order

    assert start.steps == steps
    assert torch.equal(start.timesteps(scheduler), scheduler.timesteps[skipped:])
    if hasattr(scheduler, "begin_index"):
        assert scheduler.begin_index == skipped


@torch.inference_mode()
def test_latents_are_those_of_the_image_with_noise(sd: Model) -> None:
    """The VAE's draw comes from the generator first, then the noise."""
    start, scheduler = ImageStart(REQUEST, INPUTS), sd.samplers.new("ddim", 8)
    encoded = sd.family.encode_image(*start.images())

    latents = start.latents(sd, scheduler, Noise(5), [encoded])

    generator = torch.Generator().manual_seed(5)
    found = sd.family.pipeline.vae.encode(*start.images()).latent_dist.sample(generator)
    found = found * sd.family.pipeline.vae.config.scaling_factor
    noise = torch.randn(found.shape, generator=generator)
    assert torch.equal(latents, scheduler.add_noise(found, noise, scheduler.timesteps[4:5]))


def test_latents_that_are_there_get_noise_alone(sd: Model) -> None:
    """Nothing is encoded, and the noise is the first that the generator gives."""
    clean, scheduler = torch.ones(1, 4, 8, 16), sd.samplers.new("ddim", 8)
    start = LatentStart(REQUEST, clean)

    latents = start.latents(sd, scheduler, Noise(5))

    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(5))
    assert start.images() == ()
    assert torch.equal(latents, scheduler.add_noise(clean, noise, scheduler.timesteps[4:5]))


@torch.inference_mode()
def test_a_small_vae_has_no_distribution(model: Callable[[str], Model]) -> None:
    """Its latents are those of the image, whatever the seed."""
    tiny = model("tiny_vae")
    (image,) = ImageStart(REQUEST, INPUTS).images()

    encoded = tiny.family.encode_image(image)

    one, other = (tiny.family.sampled(encoded, Noise(seed).generator) for seed in (1, 2))
    assert torch.equal(one, other)
    scale = tiny.family.pipeline.vae.config.scaling_factor
    assert torch.equal(one, tiny.family.pipeline.vae.encode(image).latents * scale)


def test_pixels_as_diffusers_reads_them(sd: Model) -> None:
    """The rows of an image become the numbers that its image processor makes of it."""
    from PIL import Image  # noqa: PLC0415 - only here

    processor: Any = sd.family.pipeline.image_processor
    theirs = processor.preprocess(Image.frombytes("RGB", (32, 16), INPUTS.image))

    assert torch.equal(picture(INPUTS.image, 32, 16), theirs)


def test_pixels_of_another_size_are_refused() -> None:
    """The message names both sizes, and nothing is encoded."""
    with pytest.raises(GenerationFailed, match="1536 bytes as an input image of 16x16"):
        picture(INPUTS.image, 16, 16)


def test_the_request_says_which_start_it_has(sd: Model) -> None:
    """With an image it is the image's; one whose pixels did not come fails when it begins."""
    assert isinstance(start_of(replace(REQUEST, image=None), None, sd), TextStart)
    assert isinstance(start_of(REQUEST, INPUTS, sd), ImageStart)
    with pytest.raises(GenerationFailed, match="0 bytes"):
        start_of(REQUEST, None, sd).images()
