"""Same request, same image: as diffusers makes it, and whatever else the GPU is doing.

The references come from ``tests.support.references``, which shares no code with the service.
Of the matrix (ten models, nine samplers, five numbers of steps, six guidance scales) a sample
is checked by default, and all of it with ``-m long``.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from service.config import SAMPLERS
from service.diffusion.generation import GenerationRequest, JobFailed
from service.diffusion.load import Model, load_model
from service.models import catalog
from tests import tiny_models
from tests.support import parity, parity_cases, references
from tests.support.parity import Ending
from tests.support.parity_cases import MODELS, Case
from tests.support.references import Reference

log = logging.getLogger(__name__)

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
CONTRAST = 10
"""Standard deviation, in levels of 255, that makes an image worth a comparison."""
REFUSAL = JobFailed(job_id="0", code="validation_error", detail="No such thing.")


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One model's folder, read by the service and by diffusers."""

    model: Model
    reference: Reference


Pairs = Callable[[str], Pair]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pairs]:
    """Return a random-weight model of a kind, or the demo, loaded once."""
    root: Path = tmp_path_factory.mktemp("models")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    loaded: dict[str, Pair] = {}

    def get(kind: str) -> Pair:
        if kind not in loaded:
            folder = catalog.DEMO_FOLDER
            if kind != "demo":
                folder = getattr(tiny_models, f"build_{kind}")(root / kind)
                tiny_models.with_loud_unet(folder)
            source = catalog.resolve(kind if kind == "demo" else str(folder), root)
            model = load_model(source, cache_dir=root)
            loaded[kind] = Pair(model=model, reference=Reference(folder))
        return loaded[kind]

    yield get
    torch.set_num_threads(threads)


def same(pair: Pair, request: GenerationRequest) -> bool:
    """Whether a request alone gives the images that diffusers gives."""
    theirs = pair.reference.images(request)
    return parity.difference(parity.alone(pair.model, request), theirs).same


def check(pair: Pair, cases: Sequence[Case]) -> None:
    """Check cases, all in one step loop; log what they showed."""
    found = parity_cases.verdicts(pair.model, pair.reference, cases)
    log.info("%s: %s", cases[0].model, dict(Counter(each.kind for each in found)))
    for each in found:
        if each.kind != "same":
            log.info("%s", each)
    faults = [str(each) for each in found if not each.good]
    assert not faults, "\n".join([f"{len(faults)} of {len(found)} cases:", *faults])


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
    reference = Reference(folder)
    assert reference.pipeline.tokenizer.model_max_length > 1e9
    reference.pipeline.tokenizer.model_max_length = 77
    model = load_model(catalog.resolve(str(folder), tmp_path), cache_dir=tmp_path)

    assert same(Pair(model=model, reference=reference), replace(REQUEST, prompt="x" * 90))


@pytest.mark.parametrize("kind", MODELS.values(), ids=MODELS)
def test_images_can_be_told_apart(pair: Pairs, kind: str) -> None:
    """A model's images hold contrast, and another request's are not the same by the bound."""
    reference = pair(kind).reference
    request = replace(REQUEST, width=32, height=32, steps=8, num_images=1)
    found = reference.images(request)
    unlike: list[dict[str, object]] = [
        {"prompt": "dog"},
        {"negative_prompt": ""},
        {"guidance_scale": 3.0},
        {"steps": 5},
        {"seed": 6},
    ]
    if reference.pipeline.unet.config.time_cond_proj_dim is not None:
        unlike.remove({"negative_prompt": ""})  # A distilled model reads none.

    assert found[0].std() > CONTRAST
    assert np.mean((found[0] > 0) & (found[0] < 255)) > 0.5
    for change in unlike:
        other = reference.images(replace(request, **change))  # type: ignore[arg-type]
        assert not parity.difference(found, other).same, change


@pytest.mark.parametrize("kind", MODELS.values(), ids=MODELS)
def test_samplers_can_be_told_apart(pair: Pairs, kind: str) -> None:
    """No sampler passes for another, but Euler for DDIM, which is the same formula."""
    reference = pair(kind).reference
    request = replace(REQUEST, width=32, height=32, steps=8, num_images=1)
    images = {
        sampler: reference.images(replace(request, sampler=sampler))
        for sampler in references.SAMPLERS
    }

    alike = {
        pair
        for pair in combinations(sorted(images), 2)
        if parity.difference(images[pair[0]], images[pair[1]]).same
    }

    assert alike <= {("ddim", "euler")}


class Merging(Reference):
    """A reference that loses overrides: it merges them into the model's configuration."""

    def scheduler(self, sampler: str) -> Any:
        scheduler_class, keywords = references.SAMPLERS[sampler]
        return scheduler_class.from_config({**self.config, **keywords})


@pytest.mark.parametrize(
    ("kind", "sampler"),
    [("sd21_base", "dpmpp_2m_karras"), ("sd21_v", "ddim"), ("tiny_vae_old", "pndm")],
)
def test_a_lost_override_is_seen(pair: Pairs, kind: str, sampler: str) -> None:
    """An override that does not reach the scheduler of an old file makes another image."""
    reference = pair(kind).reference
    request = replace(REQUEST, width=32, height=32, steps=20, sampler=sampler)

    found = Merging(reference.folder).images(request)

    assert not parity.difference(found, reference.images(request)).same


class Other(Reference):
    """A reference that is asked for one sampler and takes another."""

    def scheduler(self, sampler: str) -> Any:
        return super().scheduler("euler" if sampler == "heun" else sampler)


def test_a_fault_fails_the_check(pair: Pairs) -> None:
    """The check fails on one wrong image among right ones, and names its case."""
    sd = pair("sd")
    wrong = replace(sd, reference=Other(sd.reference.folder))
    cases = [
        each
        for each in parity_cases.matrix()
        if (each.model, each.steps, each.guidance) == ("SD 1.5", 3, 7.5)
    ]

    check(sd, cases)
    with pytest.raises(AssertionError) as raised:
        check(wrong, cases)

    text = str(raised.value)
    assert "1 of 9 cases:" in text
    assert "different: SD 1.5, heun, 3 steps, guidance 7.5" in text


class Unable(Reference):
    """A reference that has no such sampler."""

    def scheduler(self, sampler: str) -> Any:
        raise ValueError(sampler)


@pytest.mark.parametrize(
    ("ending", "kind"),
    [
        (Ending(images=[]), "not refused"),
        (Ending(images=[], failure=REFUSAL), "refused"),
        (Ending(images=[], failure=REFUSAL, steps=1), "not refused"),
    ],
)
def test_a_case_without_a_reference(pair: Pairs, ending: Ending, kind: str) -> None:
    """Where diffusers makes no image, the service has to refuse before its first step."""
    reference = Unable(pair("sd").reference.folder)

    assert parity_cases.verdict(parity_cases.matrix()[0], ending, reference).kind == kind


def test_a_failure_with_a_reference(pair: Pairs) -> None:
    """Where diffusers makes an image, a failure is a fault."""
    ending = Ending(images=[], failure=REFUSAL)

    found = parity_cases.verdict(parity_cases.matrix()[0], ending, pair("sd").reference)

    assert found.kind == "failed"
    assert not found.good


@pytest.mark.parametrize("sampler", FEW)
@pytest.mark.skipif(
    not (catalog.DEMO_FOLDER / catalog.INDEX).is_file(), reason="the demo model is not bundled"
)
def test_demo(pair: Pairs, sampler: str) -> None:
    """The bundled model, with weights that draw something, keeps the bound."""
    request = replace(REQUEST, prompt="a red house", width=256, height=256, sampler=sampler)
    demo = pair("demo")

    found = parity.alone(demo.model, request)

    assert parity.difference(found, demo.reference.images(request)).same
    assert parity.difference(parity.in_company(demo.model, request), found).same
