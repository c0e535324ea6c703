"""Same request, same image: as diffusers makes it, and whatever else the GPU is doing.

The references come from ``tests.support.references``, which shares no code with the service.
Of the matrix (ten models, nine samplers, five numbers of steps, six guidance scales) a sample
is checked by default, and all of it with ``-m long``.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from service.config import SAMPLERS
from service.diffusion.generation import GenerationRequest
from service.models import catalog
from tests import tiny_models
from tests.support import parity, parity_cases, references
from tests.support.parity_cases import MODELS
from tests.support.parity_pairs import DEMO, Pair, Pairs, check, load

pytestmark = [
    # numpy 2 asks torch's tensors for a keyword that they do not have yet, when a diffusers
    # scheduler turns its sigmas into an array. Nothing of ours is in that call.
    pytest.mark.filterwarnings(
        "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
    ),
    # diffusers corrects old scheduler files, which some of the models here have on purpose.
    pytest.mark.filterwarnings("ignore:The configuration file of this scheduler:FutureWarning"),
]

REQUEST = GenerationRequest(
    prompt="a cat", negative_prompt="a dog", width=32, height=16, steps=5, seed=5, num_images=2
)
KINDS = ("sd", "sd21_v", "sdxl", "lcm_schedule", "tiny_vae_old")
FEW = ("dpmpp_2m", "euler_a", "heun")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pairs]:
    """Return a random-weight model of a kind, or the demo, loaded once."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Pairs(tmp_path_factory.mktemp("models"))
    torch.set_num_threads(threads)


def same(pair: Pair, request: GenerationRequest) -> bool:
    """Whether a request alone gives the images that diffusers gives."""
    theirs = pair.reference.images(request)
    return parity.difference(parity.alone(pair.model, request), theirs).same


@pytest.mark.parametrize("model", MODELS)
def test_sample_as_in_diffusers(pair: Pairs, model: str) -> None:
    """Twenty requests that run together give, each, the image that diffusers gives."""
    check(pair(MODELS[model]), [each for each in parity_cases.sample() if each.model == model])


@pytest.mark.long
@pytest.mark.parametrize("sampler", references.SAMPLERS)
@pytest.mark.parametrize("model", MODELS)
def test_matrix_as_in_diffusers(pair: Pairs, model: str, sampler: str) -> None:
    """Requests of all steps and guidance scales give, each, the image that diffusers gives."""
    chosen = [
        each for each in parity_cases.matrix() if each.model == model and each.sampler == sampler
    ]
    check(pair(MODELS[model]), chosen)


def test_what_diffusers_cannot_do_is_refused(pair: Pairs) -> None:
    """A schedule that diffusers fails on is an error of the request, before the first step.

    With zero SNR, Karras's sigmas and 21 steps or more, two timesteps are 999. diffusers 0.42
    begins at the second of them, and runs off the end of its sigmas.
    """
    chosen = [
        each
        for each in parity_cases.matrix()
        if (each.model, each.sampler, each.steps) == ("zero SNR", "dpmpp_2m_karras", 50)
    ]

    check(pair("zero_snr"), chosen[-2:])


def test_sample_covers_the_matrix() -> None:
    """The sample holds 200 of 2,700 cases, and every sampler twice with every model."""
    chosen = parity_cases.sample()
    cells = Counter((each.model, each.sampler) for each in chosen)

    assert len(parity_cases.matrix()) == 2700
    assert len({each.number for each in chosen}) == 200
    assert len(cells) == len(MODELS) * len(SAMPLERS)
    assert min(cells.values()) >= 2
    assert {each.steps for each in chosen} == set(parity_cases.STEPS)
    assert {each.guidance for each in chosen} == set(parity_cases.GUIDANCE)


def test_references_have_every_sampler() -> None:
    """The samplers of the references are those of the service."""
    assert set(references.SAMPLERS) == set(SAMPLERS)


CASES = pytest.mark.parametrize(
    ("kind", "sampler"),
    [
        *(("sd", sampler) for sampler in SAMPLERS),
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

    found = parity.in_company(model, request)

    assert parity.difference(found, parity.alone(model, request)).same


@pytest.mark.parametrize("steps", [1, 2, 50])
@pytest.mark.parametrize("sampler", SAMPLERS)
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


@pytest.mark.parametrize("sampler", FEW)
@pytest.mark.skipif(
    not (catalog.DEMO_FOLDER / catalog.INDEX).is_file(), reason="the demo model is not bundled"
)
def test_demo(pair: Pairs, sampler: str) -> None:
    """The bundled model, with weights that draw something, keeps the bound."""
    request = replace(REQUEST, prompt="a red house", width=256, height=256, sampler=sampler)
    demo = pair(DEMO)

    found = parity.alone(demo.model, request)

    assert parity.difference(found, demo.reference.images(request)).same
    assert parity.difference(parity.in_company(demo.model, request), found).same
