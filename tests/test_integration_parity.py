"""Same request, same image: as diffusers makes it, and whatever else the GPU is doing.

The references come from ``tests.support.parity.references``, which shares no code with the service.
Of the matrix (ten models, 115 pairs of sampler and schedule, five numbers of steps, six guidance
scales) a sample is checked by default, and all of it with ``-m matrix``.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

from service.core.sampler import Sampler, Schedule
from service.core.spec import GenerationSpec
from service.models import catalog
from tests.support.models import tiny_models
from tests.support.parity import cases as parity_cases
from tests.support.parity import comparison, references
from tests.support.parity.cases import MODELS, Case
from tests.support.parity.pairs import DEMO, Pair, Pairs, check, load

pytestmark = [
    # numpy 2 asks torch's tensors for keywords that they do not have yet, when a diffusers
    # scheduler turns its sigmas into an array. Nothing of ours is in that call.
    pytest.mark.filterwarnings(
        "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning",
        "ignore:__array_wrap__ must accept context and return_scalar:DeprecationWarning",
    ),
    # A tree of torchsde, as diffusers asks it: a rounding error outside of its ends.
    pytest.mark.filterwarnings("ignore:Should have t[ab].=t:UserWarning"),
    # diffusers corrects old scheduler files, which some of the models here have on purpose.
    pytest.mark.filterwarnings("ignore:The configuration file of this scheduler:FutureWarning"),
]

REQUEST = GenerationSpec(
    prompt="a cat", negative_prompt="a dog", width=32, height=16, steps=5, seed=5, num_images=2
)
KINDS = ("sd", "sd21_v", "sdxl", "lcm_schedule", "tiny_vae_old")
FEW = ("dpmpp_2m", "euler_a", "heun")
"""Samplers that everything is checked with in the short run; the sample of a model has all."""

SCHEDULED = [each for each in Sampler if len(each.schedules) > 1]
SHORT = "SD 1.5"
"""Model whose sample is checked in the short run, too."""


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pairs]:
    """Return a random-weight model of a kind, or the demo, loaded once."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Pairs(tmp_path_factory.mktemp("models"))
    torch.set_num_threads(threads)


def in_short(sampler: str, *values: object) -> Any:
    """Return the values of a case, which is long for most samplers."""
    return pytest.param(*values, marks=() if sampler in FEW else pytest.mark.long)


def same(pair: Pair, request: GenerationSpec) -> bool:
    """Whether a request alone gives the images that diffusers gives."""
    theirs = pair.reference.images(request)
    return comparison.difference(comparison.alone(pair.model, request), theirs).same


@pytest.mark.parametrize(
    "model",
    [pytest.param(name, marks=() if name == SHORT else pytest.mark.long) for name in MODELS],
)
def test_sample_as_in_diffusers(pair: Pairs, model: str) -> None:
    """Twenty requests that run together give, each, the image that diffusers gives."""
    check(pair(MODELS[model]), [each for each in parity_cases.sample() if each.model == model])


@pytest.mark.matrix
@pytest.mark.parametrize("sampler", references.SAMPLERS)
@pytest.mark.parametrize("model", MODELS)
def test_matrix_as_in_diffusers(pair: Pairs, model: str, sampler: str) -> None:
    """Requests of all steps and guidance scales give, each, the image that diffusers gives."""
    chosen = [
        each for each in parity_cases.matrix() if each.model == model and each.sampler == sampler
    ]
    check(pair(MODELS[model]), chosen)


@pytest.mark.parametrize("kind", ["sd", pytest.param("sd21_v", marks=pytest.mark.long), "sdxl"])
def test_skipped_layers_as_in_diffusers(pair: Pairs, kind: str) -> None:
    """Texts that are read to other layers share calls, and each image is as diffusers makes it."""
    requests = {
        f"{number}": replace(REQUEST, prompt=prompt, clip_skip=skip, seed=number)
        for number, (prompt, skip) in enumerate(product(("a cat", "x, " * 60), (1, 2)))
    }

    together = comparison.together(pair(kind).model, requests)

    images = []
    for name, request in requests.items():
        theirs = pair(kind).reference.images(request)
        assert together[name].shared
        assert comparison.difference(together[name].images, theirs).same, request
        assert same(pair(kind), request), request
        images.append(theirs)
    assert not comparison.difference(images[0], images[1]).same, "a skipped layer changes nothing"


def test_what_diffusers_cannot_do_is_refused(pair: Pairs) -> None:
    """A schedule that does not exist for a model is an error of the request, before any step."""
    chosen = [
        each
        for each in parity_cases.matrix()
        if (each.model, each.sampler, each.schedule, each.steps)
        == ("zero SNR", "dpmpp_2m", "align_your_steps", 50)
    ]

    check(pair("zero_snr"), chosen[-2:])


def test_sample_covers_the_matrix() -> None:
    """The sample holds 400 of 34,500 cases, and every sampler twice with every model."""
    chosen = parity_cases.sample()
    cells = Counter((each.model, each.sampler) for each in chosen)

    assert len(parity_cases.matrix()) == 34500
    assert len({each.number for each in chosen}) == 400
    assert len(cells) == len(MODELS) * len(Sampler)
    assert min(cells.values()) >= 2
    assert {each.steps for each in chosen} == set(parity_cases.STEPS)
    assert {each.guidance for each in chosen} == set(parity_cases.GUIDANCE)
    assert {each.schedule for each in chosen} == set(Schedule)


def test_references_have_every_sampler() -> None:
    """The samplers of the references are those of the service."""
    assert set(references.SAMPLERS) == set(Sampler)


@pytest.mark.parametrize(
    ("kind", "sampler"),
    [
        *(("sd", sampler) for sampler in SCHEDULED if sampler in FEW),
        # Of both kinds each has the few; the others take turns.
        *(pytest.param("sdxl", each, marks=pytest.mark.long) for each in SCHEDULED if each in FEW),
        *(
            pytest.param(("sd", "sdxl")[number % 2], sampler, marks=pytest.mark.long)
            for number, sampler in enumerate(each for each in SCHEDULED if each not in FEW)
        ),
    ],
)
def test_every_schedule_as_in_diffusers(pair: Pairs, kind: str, sampler: Sampler) -> None:
    """A sampler draws in each schedule what diffusers draws, in one batch with all the others."""
    chosen = [
        Case(number=number, model=kind, sampler=sampler, schedule=each, steps=20, guidance=7.5)
        for number, each in enumerate(sampler.schedules)
    ]

    found = parity_cases.verdicts(pair(kind).model, pair(kind).reference, chosen)

    assert {each.kind for each in found} == {"same"}, "\n".join(map(str, found))


@pytest.mark.parametrize("schedule", ["karras", "beta"])
def test_levels_within_one_timestep(pair: Pairs, schedule: str) -> None:
    """With zero SNR and many steps two timesteps are 999; each level is stepped through.

    diffusers 0.42 would begin at the second of them, unless its pipeline counts from 0.
    """
    request = replace(REQUEST, schedule=schedule, steps=50, num_images=1, width=16)

    assert same(pair("zero_snr"), request)


def test_an_old_name_is_the_pair_that_it_stands_for(pair: Pairs) -> None:
    """A request of an earlier version gets the image that it got."""
    old = replace(REQUEST, sampler="dpmpp_2m_karras")

    assert (old.sampler, old.schedule) == ("dpmpp_2m", "karras")
    assert same(pair("sd"), old)


CASES = pytest.mark.parametrize(
    ("kind", "sampler"),
    [
        *(in_short(sampler, "sd", sampler) for sampler in Sampler),
        *((kind, sampler) for kind in KINDS[1:] for sampler in FEW),
    ],
)


@CASES
def test_two_images_as_in_diffusers(pair: Pairs, kind: str, sampler: str) -> None:
    """A request for two images gives those that one call of the pipeline gives."""
    assert same(pair(kind), replace(REQUEST, sampler=sampler))


@CASES
def test_in_company_as_alone(pair: Pairs, kind: str, sampler: str) -> None:
    """Others that join, leave and differ in everything change nothing but rounding."""
    request = replace(REQUEST, sampler=sampler)
    model = pair(kind).model

    found = comparison.in_company(model, request)

    assert comparison.difference(found, comparison.alone(model, request)).same


@pytest.mark.parametrize(
    ("sampler", "steps"),
    [
        *product(Sampler, (1, 2)),
        *(in_short(sampler, sampler, 50) for sampler in Sampler),
    ],
)
def test_fewest_and_most_steps(pair: Pairs, sampler: str, steps: int) -> None:
    """The bound holds at both ends of what may be asked for."""
    request = replace(REQUEST, sampler=sampler, steps=steps, width=16, num_images=1)

    assert same(pair("sd"), request)


@pytest.mark.parametrize(
    "changes",
    [
        {"guidance_scale": 1.0},
        {"guidance_scale": 0.0},
        {"negative_prompt": ""},
        {"prompt": "x" * 90},
    ],
)
@pytest.mark.parametrize(
    "kind", ["sd", "sdxl", "sdxl_without_zeros", "lcm_schedule", "odd_tokenizer"]
)
def test_prompts_and_guidance(pair: Pairs, kind: str, changes: dict[str, object]) -> None:
    """Without guidance, without negative prompt and with too long a prompt it holds too."""
    assert same(pair(kind), replace(REQUEST, num_images=1, **changes))  # type: ignore[arg-type]


def test_tokenizer_without_a_limit(tmp_path: Path) -> None:
    """A tokenizer that states no longest prompt reads what its text encoder reads."""
    folder = tiny_models.without_token_limit(tiny_models.build_sd(tmp_path / "model"))
    pair = load(folder, tmp_path)
    assert pair.reference.pipeline.tokenizer.model_max_length > 1e9
    pair.reference.pipeline.tokenizer.model_max_length = 77

    assert same(pair, replace(REQUEST, prompt="x" * 90))


@pytest.mark.parametrize(
    "sampler", [FEW[0], *(pytest.param(each, marks=pytest.mark.long) for each in FEW[1:])]
)
@pytest.mark.skipif(
    not (catalog.DEMO_FOLDER / catalog.INDEX).is_file(), reason="the demo model is not bundled"
)
def test_demo(pair: Pairs, sampler: str) -> None:
    """The bundled model, with weights that draw something, keeps the bound."""
    request = replace(REQUEST, prompt="a red house", width=256, height=256, sampler=sampler)
    demo = pair(DEMO)

    found = comparison.alone(demo.model, request)

    assert comparison.difference(found, demo.reference.images(request)).same
    assert comparison.difference(comparison.in_company(demo.model, request), found).same
