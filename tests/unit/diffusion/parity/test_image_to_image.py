"""Images that begin with an image, as diffusers' own img2img pipelines draw them.

The references are ``StableDiffusionImg2ImgPipeline`` and that of XL, built around the same parts
without the code under test.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from service.core.sampler import ETA, Sampler
from service.core.spec import GenerationSpec
from service.diffusion.adapters.store import store_of
from service.diffusion.loop.step_loop import StepLoop
from service.models.adapters.catalog import AdapterCatalog
from tests.support.models import adapter_files
from tests.support.parity import adapted, comparison, gallery
from tests.support.parity.pairs import DEMO, Pairs, check

pytestmark = [
    pytest.mark.filterwarnings("ignore:The configuration file of this scheduler:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Should have t[ab].=t:UserWarning"),
]

LONG = pytest.mark.long
FAMILIES = ("sd", "sd21_v", "sdxl", "lcm_schedule", "tiny_vae_old", "zero_snr", "turbo", DEMO)
STRENGTHS = (0.3, 0.5, 0.75, 1.0)
REQUEST = GenerationSpec(
    prompt="a cat",
    negative_prompt="a dog",
    width=32,
    height=16,
    steps=8,
    seed=5,
    strength=0.6,
    image=gallery.reference(1),
)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A request with a number of its own."""

    number: int
    model: str
    request: GenerationSpec

    def __str__(self) -> str:
        asked = self.request
        how = f"{asked.sampler}, {asked.schedule}, {asked.steps} steps"
        return f"{self.model}, {how}, strength {asked.strength:g}, guidance {asked.guidance_scale}"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pairs]:
    """Return a random-weight model of a kind, or the demo, loaded once."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Pairs(tmp_path_factory.mktemp("models"))
    torch.set_num_threads(threads)


def cases(model: str) -> list[Case]:
    """Return every sampler at three strengths, once in a schedule of its own.

    Only the first family has all of them; each other one has a third, in turn.
    """
    # The demo's autoencoder shrinks by eight, and those of the others by two.
    scale = 8 if model == DEMO else 1
    requests = [
        replace(
            REQUEST,
            width=scale * (32, 16)[number % 2],
            height=scale * 16,
            image=gallery.reference(number, scale * 32, scale * 16),
            sampler=sampler,
            schedule=sampler.schedules[number % len(sampler.schedules) if turn == 0 else 0],
            steps=(8, 5, 11)[turn],
            strength=STRENGTHS[(number + turn) % len(STRENGTHS)],
            guidance_scale=(7.5, 1.0, 4.0)[turn],
            eta=0.5 if sampler in ETA and turn == 1 else 0.0,
            clip_skip=1 + number % 2,
            seed=100 * number + turn,
        )
        for number, sampler in enumerate(Sampler)
        for turn in range(3)
    ]
    if family := FAMILIES.index(model):
        requests = [each for at, each in enumerate(requests) if at % 3 == (at // 3 + family) % 3]
    return [Case(number=n, model=model, request=each) for n, each in enumerate(requests)]


@pytest.mark.parametrize(
    "model", [FAMILIES[0], *(pytest.param(each, marks=LONG) for each in FAMILIES[1:])]
)
def test_every_sampler_as_in_diffusers(pair: Pairs, model: str) -> None:
    """All of them share calls of the UNet, and each has the image that diffusers makes."""
    check(pair(model), cases(model))


@pytest.mark.parametrize("model", ["sd", "sdxl", pytest.param("sd21_v", marks=LONG)])
@pytest.mark.parametrize("sampler", ["dpmpp_2m", "euler_a", "heun"])
def test_alone_and_in_company(pair: Pairs, model: str, sampler: str) -> None:
    """Whatever joins and leaves, a job's images are the same, and those of diffusers."""
    found, request = pair(model), replace(REQUEST, sampler=sampler, num_images=2)
    theirs = found.reference.images(request)

    alone = comparison.alone(found.model, request)

    assert comparison.difference(alone, theirs).same
    assert comparison.difference(comparison.in_company(found.model, request), theirs).same
    assert not comparison.difference(alone[:1], alone[1:]).same


def test_every_input_counts(pair: Pairs) -> None:
    """Another image, strength or seed is another result."""
    found = pair("sd")
    first = comparison.alone(found.model, REQUEST)
    others: list[dict[str, Any]] = [
        *({"image": gallery.reference(9)}, {"image": None}),
        *({"strength": 0.8}, {"seed": 6}),
    ]
    for changes in others:
        again = comparison.alone(found.model, replace(REQUEST, **changes))
        assert not comparison.difference(first, again).same, changes


def test_the_weakest_strength_does_a_single_step(pair: Pairs) -> None:
    """Of fifty steps the last one, with every sampler."""
    found = pair("sd")
    for sampler in Sampler:
        if sampler.most_steps is not None:
            continue
        request = replace(REQUEST, sampler=sampler, steps=50, strength=0.02)
        theirs = found.reference.images(request)
        difference = comparison.difference(comparison.alone(found.model, request), theirs)
        assert difference.same, f"{sampler}: {difference}"


def test_a_prompt_changes_by_the_steps_that_are_done(pair: Pairs) -> None:
    """They count from the first of them, as AUTOMATIC1111's do in img2img."""

    def drawn(prompt: str) -> list[np.ndarray]:
        asked = replace(REQUEST, prompt=prompt, prompt_syntax="a1111", strength=0.5)
        return comparison.alone(pair("sd").model, asked)

    first, second = drawn("a cat"), drawn("two words")

    assert comparison.difference(drawn("[a cat:two words:4]"), first).same
    assert comparison.difference(drawn("[a cat:two words:0]"), second).same
    between = drawn("[a cat:two words:2]")
    assert not comparison.difference(between, first).same
    assert not comparison.difference(between, second).same


@pytest.mark.parametrize("model", ["sd", pytest.param("sdxl", marks=LONG)])
def test_adapters_as_in_diffusers(pair: Pairs, model: str, tmp_path: Path) -> None:
    """Rows with a LoRA and rows without begin with images, and share the calls of the UNet."""
    found = pair(model)
    file = adapter_files.lora(
        tmp_path / "a.safetensors",
        found.reference.pipeline,
        {"unet": ("attn", "conv1"), "text_encoder": ("q_proj",)},
    )
    catalog = AdapterCatalog(tmp_path)
    loop = StepLoop(found.model, batch_limit=8, adapters=store_of(found.model, catalog=catalog))
    requests = {
        "adapted": replace(REQUEST, adapters=(adapted.adapter("a", 0.8),)),
        "plain": replace(REQUEST, seed=9),
    }
    for job_id, request in requests.items():
        loop.add(job_id, request, inputs=gallery.engine_inputs(request))

    endings = comparison.endings(loop)

    for job_id, request in requests.items():
        theirs = adapted.images(found.reference, request, {"a": file})
        assert endings[job_id].shared
        assert comparison.difference(endings[job_id].images, theirs).same, job_id
