"""Inpainting as diffusers' own pipelines do it, before anything is put back into the input image.

The references are ``StableDiffusionInpaintPipeline`` and that of XL, built around the same parts
without the code under test, at strengths of 1 and below; models with four and with nine channels.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionInpaintPipeline
from PIL import Image

from service.core.inputs import Hires
from service.core.sampler import Sampler
from service.core.spec import GenerationSpec
from tests.support.parity import comparison, gallery, references
from tests.support.parity.pairs import DEMO, Pair, Pairs, check

pytestmark = [
    pytest.mark.filterwarnings("ignore:The configuration file of this scheduler:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Should have t[ab].=t:UserWarning"),
]

REQUEST = GenerationSpec(
    prompt="a cat",
    negative_prompt="a dog",
    width=32,
    height=32,
    steps=6,
    seed=5,
    sampler="euler_a",
    strength=0.6,
    image=gallery.reference(1),
    mask=gallery.reference(2),
)
LONG = pytest.mark.long
FOUR = ("sd", "sd21_v", "sdxl", "lcm_schedule", DEMO)
NINE = ("inpaint", "inpaint_sd2", "inpaint_xl", "inpaint_tiny_vae")
SHORT = ("sd", "inpaint")
"""Models of the short run."""
STRENGTHS = (1.0, 0.99, 0.7, 0.4)
"""Of each sampler the first and one of the others."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A request with a number of its own."""

    number: int
    model: str
    request: GenerationSpec

    def __str__(self) -> str:
        asked = self.request
        mode = "mask" if asked.mask else "image" if asked.image else "text"
        return f"{self.model}, {mode}, {asked.sampler}, {asked.steps} steps, {asked.strength}"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pairs]:
    """Return a random-weight model of a kind, or the demo, loaded once."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Pairs(tmp_path_factory.mktemp("models"))
    torch.set_num_threads(threads)


def cases(model: str) -> list[Case]:
    """Return every sampler at two strengths, with other masks, texts and images among them.

    Only the models of the short run have all of them; each other one has a half, in turn.
    """
    # The demo's autoencoder shrinks by eight, and those of the others by two.
    side = 128 if model == DEMO else 32
    base = replace(REQUEST, width=side, height=side)
    requests = [
        replace(
            base,
            sampler=sampler,
            strength=strength,
            seed=number,
            steps=4 + number % 3,
            mask=gallery.reference(2 + number % 3),
            guidance_scale=(7.5, 1.0)[number % 5 == 0],
        )
        for number, sampler in enumerate(Sampler)
        for strength in (STRENGTHS[0], STRENGTHS[1 + number % 3])
    ]
    requests[5::9] = [replace(each, mask=None, strength=0.7) for each in requests[5::9]]
    requests[3::9] = [replace(each, image=None, mask=None) for each in requests[3::9]]
    if model not in SHORT:
        turn = (*FOUR, *NINE).index(model)
        requests = [each for at, each in enumerate(requests) if at % 2 == (at // 2 + turn) % 2]
    return [Case(number=n, model=model, request=each) for n, each in enumerate(requests)]


@pytest.mark.parametrize(
    "model", [*SHORT, *(pytest.param(each, marks=LONG) for each in (*FOUR[1:], *NINE[1:]))]
)
def test_rows_as_in_diffusers(pair: Pairs, model: str) -> None:
    """Masks, images and texts share calls of the UNet; each has the image that diffusers makes."""
    check(pair(model), cases(model))


@pytest.mark.parametrize("model", ["sdxl", "inpaint_xl"])
@pytest.mark.parametrize("strength", [1.0, 0.6])
def test_alone_and_in_company(pair: Pairs, model: str, strength: float) -> None:
    """Whatever joins and leaves, a job's images are the same, and those of diffusers."""
    request = replace(REQUEST, strength=strength, num_images=2)
    found = pair(model)
    theirs = found.reference.images(request)

    alone = comparison.alone(found.model, request)

    assert comparison.difference(alone, theirs).same
    assert comparison.difference(comparison.in_company(found.model, request), theirs).same


@pytest.mark.parametrize("model", ["sd", "inpaint"])
def test_every_input_counts(pair: Pairs, model: str) -> None:
    """Another image, mask, strength or fill is another result."""
    found = pair(model)
    first = images(found)
    others: list[dict[str, Any]] = [
        {"image": gallery.reference(9)},
        {"mask": gallery.reference(9)},
        {"mask": None},
        {"strength": 0.8},
        {"mask_fill": "noise"},
    ]
    for changes in others:
        assert not comparison.difference(first, images(found, **changes)).same, changes


@pytest.mark.parametrize("model", ["sd", "inpaint"])
@pytest.mark.parametrize("strength", [1.0, 0.6])
def test_noise_in_the_place_of_what_is_repainted(
    pair: Pairs, monkeypatch: pytest.MonkeyPatch, model: str, strength: float
) -> None:
    """It is that of the seed; where all begins with noise, and outside of the mask, none is added.

    diffusers has no such option: its pipeline is given the latents that AUTOMATIC1111 would make.
    """
    found = pair(model)
    request = replace(REQUEST, strength=strength, mask_fill="noise")

    class Filled(StableDiffusionInpaintPipeline):  # type: ignore[misc] # it has no types
        def prepare_latents(self, *args: Any, **options: Any) -> Any:
            first, noise, *clean = super().prepare_latents(*args, **options)
            if not options["is_strength_max"]:
                # Its own draw comes back from the first latents where none are returned.
                (latents,) = clean or (self.clean,)
                mask = self.mask_processor.preprocess(gallery.mask(gallery.reference(2), (32, 32)))
                mask = torch.nn.functional.interpolate(mask, size=noise.shape[2:])
                filled = latents * (1 - mask) + noise * mask
                first = self.scheduler.add_noise(filled, noise, options["timestep"])
            return first, noise, *clean

        def _encode_vae_image(self, image: Any, generator: Any) -> Any:
            found = super()._encode_vae_image(image, generator)
            self.clean = getattr(self, "clean", found)
            return found

    monkeypatch.setitem(references.KINDS, (False, True), Filled)
    theirs = found.reference.images(request)

    difference = comparison.difference(comparison.alone(found.model, request), theirs)
    assert difference.same, difference


@pytest.mark.parametrize("model", ["inpaint", pytest.param("inpaint_xl", marks=LONG)])
def test_two_passes_of_a_model_for_inpainting(pair: Pairs, model: str) -> None:
    """Both are given a white mask; diffusers is called twice."""
    found, text = pair(model), replace(REQUEST, image=None, mask=None)
    (first,) = found.reference.images(text)
    size = (2 * REQUEST.width, 2 * REQUEST.height)
    found.reference.set_scheduler(text, text.seed)
    inputs = {
        "image": Image.fromarray(first).resize(size, Image.Resampling.LANCZOS),
        "mask_image": Image.new("L", size, "white"),
    }
    theirs = found.reference.pipeline_of(inputs)(
        text.prompt,
        negative_prompt=text.negative_prompt,
        **dict(zip(("width", "height"), size, strict=True)),
        strength=0.7,
        num_inference_steps=text.steps,
        guidance_scale=text.guidance_scale,
        generator=torch.Generator("cpu").manual_seed(text.seed),
        **inputs,
    ).images[0]

    hires = Hires(scale=2, strength=0.7, resize="lanczos")
    ours = comparison.alone(found.model, replace(text, hires=hires))
    latent = comparison.alone(found.model, replace(text, hires=replace(hires, resize="latent")))

    difference = comparison.difference(ours, [np.asarray(theirs)])
    assert difference.same, difference
    assert latent[0].shape == ours[0].shape


def images(pair: Pair, **changes: Any) -> list[Any]:
    """Return the images of the request with changes."""
    return comparison.alone(pair.model, replace(REQUEST, **changes))
