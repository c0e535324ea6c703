"""Images in two passes: as diffusers' two pipelines make them, and whatever else is drawn.

The references come from ``tests.support.parity.hires``, which shares no code with the service.
"""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import pytest
import torch

from service.core.inputs import Hires
from service.core.sampler import Sampler, Schedule
from service.core.spec import GenerationSpec
from tests.support.parity import comparison, references
from tests.support.parity.cases import MODELS, verdicts
from tests.support.parity.hires import TwoPasses
from tests.support.parity.pairs import DEMO, SENSITIVE, Pair, Pairs

log = logging.getLogger(__name__)

pytestmark = [
    # A tree of torchsde, as diffusers asks it: a rounding error outside of its ends.
    pytest.mark.filterwarnings("ignore:Should have t[ab].=t:UserWarning"),
    # diffusers corrects old scheduler files, which some of the models here have on purpose.
    pytest.mark.filterwarnings("ignore:The configuration file of this scheduler:FutureWarning"),
]

FIRST = GenerationSpec(
    prompt="a cat", negative_prompt="a dog", width=32, height=16, steps=4, seed=5
)
PASSES: tuple[Hires, ...] = (
    Hires(scale=2, strength=0.7),
    Hires(scale=1.5, steps=5, strength=1.0, resize="lanczos"),
    Hires(width=48, height=64, steps=7, strength=0.3),
    Hires(scale=2, steps=3, strength=0.5, resize="lanczos"),
)
"""Enlargements in both ways, evenly and not, with more and with fewer steps than the first pass."""

LATENTS_OF_DIFFUSERS = 4
"""Channels of the only latents that its image to image takes for latents."""

SHORT = "SD 1.5"
"""Model that is checked in the short run."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A request of two passes."""

    number: int
    request: GenerationSpec

    def __str__(self) -> str:
        asked = self.request
        return f"{asked.sampler}, {asked.schedule}, guidance {asked.guidance_scale}, {asked.hires}"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pairs]:
    """Return a random-weight model of a kind, or the demo, loaded once."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Pairs(tmp_path_factory.mktemp("models"))
    torch.set_num_threads(threads)


def cases(passes: Sequence[Hires] = PASSES) -> list[Case]:
    """Return requests with every sampler and both ways to enlarge, and one without guidance."""
    numbers = count()
    found = []
    for at, sampler in enumerate(references.SAMPLERS):
        for number in (at, at + 1):
            schedule = Sampler(sampler).schedules[number % 2 and -1]
            request = replace(
                FIRST,
                sampler=sampler,
                schedule=schedule if number != at else Schedule.AUTOMATIC,
                guidance_scale=1.0 if at % 5 == 4 else 7.5,
                seed=number,
                hires=passes[number % len(passes)],
            )
            found.append(Case(number=next(numbers), request=request))
    return found


@pytest.mark.parametrize(
    "model",
    [pytest.param(name, marks=() if name == SHORT else pytest.mark.long) for name in MODELS],
)
def test_two_passes_as_in_diffusers(pair: Pairs, model: str) -> None:
    """Requests of all samplers that run together give, each, the image that diffusers gives."""
    loaded, passes, turn = pair(MODELS[model]), PASSES, [*MODELS].index(model)
    if loaded.model.family.limits.latent_channels != LATENTS_OF_DIFFUSERS:
        passes = tuple(each for each in PASSES if each.resize == "lanczos")
    chosen = cases(passes)
    if model != SHORT:  # The others have one of the two of each sampler, in turn.
        chosen = [each for each in chosen if each.number % 2 == (each.number // 2 + turn) % 2]
    found = checked(loaded, chosen)

    log.info("%s: %s", model, dict(Counter(each.kind for each in found)))
    assert any(each.shared for each in found)


def checked(pair: Pair, asked: list[Case]) -> list[Any]:
    """Demand that each request gives what diffusers gives; return what each showed."""
    found = verdicts(pair.model, TwoPasses(pair.reference), asked)
    faults = [str(each) for each in found if not each.good]
    assert not faults, "\n".join([f"{len(faults)} of {len(found)} cases:", *faults])
    assert sum(each.kind == "sensitive" for each in found) <= SENSITIVE * len(found)
    return found


@pytest.mark.parametrize("hires", PASSES, ids=str)
def test_in_company_as_alone(pair: Pairs, hires: Hires) -> None:
    """Others join and leave in both passes; two images of a request are two of diffusers."""
    loaded = pair("sd")
    request = replace(FIRST, hires=hires, num_images=2)
    theirs = TwoPasses(loaded.reference).images(request)

    assert comparison.difference(comparison.alone(loaded.model, request), theirs).same
    assert comparison.difference(comparison.in_company(loaded.model, request), theirs).same


def test_each_part_is_seen(pair: Pairs) -> None:
    """A second pass of another enlargement, strength or number of steps gives another image."""
    loaded = pair("sd")
    request = replace(FIRST, hires=PASSES[0])
    (wanted,) = TwoPasses(loaded.reference).images(request)
    others: list[dict[str, Any]] = [{"resize": "lanczos"}, {"strength": 0.3}, {"steps": 6}]

    for changes in others:
        other = replace(request, hires=replace(PASSES[0], **changes))
        (drawn,) = comparison.alone(loaded.model, other)
        assert not comparison.difference([drawn], [wanted]).same, changes


@pytest.mark.parametrize("resize", ["latent", "lanczos"])
def test_demo(pair: Pairs, resize: str) -> None:
    """The bundled model draws in two passes what diffusers draws with it."""
    loaded = pair(DEMO)
    hires = Hires(scale=1.5, steps=4, strength=0.6, resize=resize)
    request = replace(FIRST, width=64, height=64, hires=hires)

    theirs = TwoPasses(loaded.reference).images(request)

    assert comparison.difference(comparison.alone(loaded.model, request), theirs).same
