"""The check of parity itself: it finds the faults that it is there for, and excuses none."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch

from service.core.events import JobFailed
from service.core.spec import GenerationSpec
from tests.support.parity import cases as parity_cases
from tests.support.parity import comparison, references
from tests.support.parity.cases import MODELS, Case, Verdict
from tests.support.parity.comparison import Ending
from tests.support.parity.pairs import Pairs, check
from tests.support.parity.references import Reference

pytestmark = [
    pytest.mark.long,
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
    prompt="a cat", negative_prompt="a dog", width=32, height=32, steps=8, seed=5
)
CONTRAST = 10
"""Standard deviation, in levels of 255, that makes an image worth a comparison."""
REFUSAL = JobFailed(job_id="0", epoch=1, code="validation_error", detail="No such thing.")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pairs]:
    """Return a random-weight model of a kind, or the demo, loaded once."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Pairs(tmp_path_factory.mktemp("models"))
    torch.set_num_threads(threads)


def three_steps(sampler: str) -> Case:
    """Return the case of SD 1.5 with a sampler, three steps and the usual guidance."""
    (found,) = [
        each
        for each in parity_cases.matrix()
        if (each.model, each.sampler, each.steps, each.guidance) == ("SD 1.5", sampler, 3, 7.5)
        and each.schedule == "automatic"
    ]
    return found


@pytest.mark.parametrize("kind", MODELS.values(), ids=MODELS)
def test_images_can_be_told_apart(pair: Pairs, kind: str) -> None:
    """A model's images hold contrast, and another request's are not the same by the bound."""
    reference = pair(kind).reference
    found = reference.images(REQUEST)
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
        other = reference.images(replace(REQUEST, **change))  # type: ignore[arg-type]
        assert not comparison.difference(found, other).same, change


@pytest.mark.parametrize("kind", MODELS.values(), ids=MODELS)
def test_samplers_can_be_told_apart(pair: Pairs, kind: str) -> None:
    """No sampler passes for another, but where two are the same formula.

    Those are Euler and DDIM, and ancestral Euler and DDPM, with and without new noise.
    """
    reference = pair(kind).reference
    images = {
        sampler: reference.images(replace(REQUEST, sampler=sampler))
        for sampler in references.SAMPLERS
    }

    alike = {
        pair
        for pair in combinations(sorted(images), 2)
        if comparison.difference(images[pair[0]], images[pair[1]]).same
    }

    assert alike <= {("ddim", "euler"), ("ddpm", "euler_a")}


class Merging(Reference):
    """A reference that loses overrides: it merges them into the model's configuration."""

    def scheduler(self, sampler: str, schedule: str = "automatic", steps: int = 8) -> Any:
        del steps
        scheduler_class, keywords = references.SAMPLERS[sampler]
        if schedule == "karras":
            keywords = {**keywords, "use_karras_sigmas": True}
        return scheduler_class.from_config({**self.config, **keywords})


@pytest.mark.parametrize(
    ("kind", "sampler"),
    [("sd21_base", "dpmpp_2m_karras"), ("sd21_v", "ddim"), ("tiny_vae_old", "pndm")],
)
def test_a_lost_override_is_seen(pair: Pairs, kind: str, sampler: str) -> None:
    """An override that does not reach the scheduler of an old file makes another image."""
    reference = pair(kind).reference
    request = replace(REQUEST, steps=20, sampler=sampler)

    found = Merging(reference.folder).images(request)

    assert not comparison.difference(found, reference.images(request)).same


class Other(Reference):
    """A reference that is asked for one sampler and takes another."""

    def scheduler(self, sampler: str, schedule: str = "automatic", steps: int = 8) -> Any:
        return super().scheduler("euler" if sampler == "heun" else sampler, schedule, steps)


def test_a_fault_fails_the_check(pair: Pairs) -> None:
    """The check fails on one wrong image among right ones, and names its case."""
    sd = pair("sd")
    wrong = replace(sd, reference=Other(sd.reference.folder))
    cases = [three_steps(sampler) for sampler in references.SAMPLERS]

    check(sd, cases)
    with pytest.raises(AssertionError) as raised:
        check(wrong, cases)

    text = str(raised.value)
    assert "1 of 18 cases:" in text
    assert "different: SD 1.5, heun, automatic, 3 steps, guidance 7.5" in text


class Unable(Reference):
    """A reference that has no such sampler."""

    def scheduler(self, sampler: str, schedule: str = "automatic", steps: int = 8) -> Any:
        del schedule, steps
        raise ValueError(sampler)


@pytest.mark.parametrize(
    ("ending", "kind"),
    [
        (Ending(images=[]), "not refused"),
        (Ending(images=[], failure=REFUSAL), "refused"),
        (Ending(images=[], failure=REFUSAL, steps=1), "not refused"),
        (Ending(images=[], failure=replace(REFUSAL, code="generation_failed")), "not refused"),
    ],
)
def test_a_case_without_a_reference(pair: Pairs, ending: Ending, kind: str) -> None:
    """Where diffusers makes no image, the service has to answer 400 before its first step."""
    reference = Unable(pair("sd").reference.folder)

    assert parity_cases.verdict(parity_cases.matrix()[0], ending, reference).kind == kind


def test_a_failure_with_a_reference(pair: Pairs) -> None:
    """Where diffusers makes an image, a failure is a fault."""
    ending = Ending(images=[], failure=REFUSAL)

    found = parity_cases.verdict(parity_cases.matrix()[0], ending, pair("sd").reference)

    assert found.kind == "failed"
    assert not found.good


class Fickle(Reference):
    """A reference whose images any other rounding replaces by others."""

    def rounded_images(self, request: GenerationSpec) -> list[np.ndarray]:
        return self.images(replace(request, seed=request.seed + 1))


@pytest.mark.parametrize(("reference", "kind"), [(Fickle, "sensitive"), (Reference, "different")])
def test_an_image_that_rounding_decides(pair: Pairs, reference: type[Reference], kind: str) -> None:
    """Another image in company is a fault, unless other rounding gives another in diffusers."""
    sd = pair("sd")
    found = Verdict(case=parity_cases.matrix()[0], kind="different")

    doubted = parity_cases.doubted(found, sd.model, reference(sd.reference.folder))

    assert doubted.kind == kind


def test_another_image_alone_is_a_fault(pair: Pairs) -> None:
    """Rounding excuses no request that has another image when it runs alone."""
    sd = pair("sd")

    class Wrong(Fickle, Other):
        """Another sampler's images, which change with the rounding, too."""

    found = Verdict(case=three_steps("heun"), kind="different")

    assert parity_cases.doubted(found, sd.model, Wrong(sd.reference.folder)).kind == "different"
