"""The matrix of parity: models, samplers, schedules, steps, guidance; and one verdict a case."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from http.client import BAD_REQUEST
from itertools import product
from typing import Final, Protocol

import numpy as np

from service.core.sampler import Sampler, Schedule
from service.core.spec import GenerationSpec
from service.diffusion.load import Model
from service.errors import error_class
from service.models.adapters.catalog import AdapterCatalog
from tests.support.parity import comparison
from tests.support.parity.references import SAMPLERS, NoImageError

MODELS: Final[Mapping[str, str]] = {
    "SD 1.5": "sd",
    "SD 2.1-v": "sd21_v",
    "SD 2.1-base": "sd21_base",
    "zero SNR": "zero_snr",
    "SDXL": "sdxl",
    "SDXL without zeros": "sdxl_without_zeros",
    "Turbo": "turbo",
    "LCM": "lcm_schedule",
    "tiny VAE": "tiny_vae_old",
    "odd tokenizer": "odd_tokenizer",
}
"""Builder in ``tests.support.models.tiny_models``, by the kind of model that it stands for."""

STEPS: Final = (1, 2, 3, 20, 50)
GUIDANCE: Final = (0.0, 0.5, 1.0, 1.0001, 7.5, 30.0)
PROMPTS: Final = ("a cat", "x" * 90, "two Words, and a 3rd!")
SIDE: Final = 32
"""Pixels: 256 or 64 latent cells, of which a UNet call takes milliseconds."""

SEED: Final = 20
"""Draws the sample."""
A_MODEL: Final = 40
"""Cases of a model in the sample: 400 of the 34,500."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One cell of the matrix, whose number decides its texts and its seed."""

    number: int
    model: str
    sampler: str
    schedule: str
    steps: int
    guidance: float

    @property
    def request(self) -> GenerationSpec:
        """What is asked for; every other request has no negative prompt."""
        odd = STEPS.index(self.steps) + GUIDANCE.index(self.guidance)
        return GenerationSpec(
            prompt=PROMPTS[self.number % len(PROMPTS)],
            negative_prompt="" if odd % 2 else "a dog",
            width=SIDE,
            height=SIDE,
            steps=self.steps,
            guidance_scale=self.guidance,
            sampler=self.sampler,
            schedule=self.schedule,
            seed=self.number,
        )

    def __str__(self) -> str:
        drawn = f"{self.sampler}, {self.schedule}"
        return f"{self.model}, {drawn}, {self.steps} steps, guidance {self.guidance:g}"


class Asked(Protocol):
    """A request with a number of its own."""

    @property
    def number(self) -> int: ...

    @property
    def request(self) -> GenerationSpec: ...


class Draws(Protocol):
    """What draws the images of requests without the service."""

    def images(self, request: GenerationSpec) -> list[np.ndarray]: ...

    def rounded_images(self, request: GenerationSpec) -> list[np.ndarray]: ...


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a case showed."""

    case: Asked
    kind: str
    """``same``, ``refused`` or ``sensitive``, or a fault: ``different``, ``failed`` or
    ``not refused``."""
    detail: str = ""
    shared: bool = False
    """Whether it shared calls of the UNet with others."""

    @property
    def good(self) -> bool:
        """Whether the service keeps its promise."""
        return self.kind in ("same", "refused", "sensitive")

    def __str__(self) -> str:
        return f"{self.kind}: {self.case}: {self.detail}"


def matrix() -> list[Case]:
    """Return all cases."""
    pairs = [(sampler, schedule) for sampler in SAMPLERS for schedule in Sampler(sampler).schedules]
    cells = product(MODELS, pairs, STEPS, GUIDANCE)
    return [
        Case(number=number, model=model, sampler=sampler, schedule=schedule, steps=n, guidance=cfg)
        for number, (model, (sampler, schedule), n, cfg) in enumerate(cells)
    ]


def sample(seed: int = SEED) -> list[Case]:
    """Return 400 cases: every sampler twice or more with every model, at unlike steps.

    Once it follows the model's own schedule, and once another if it can.
    """
    chance = random.Random(seed)  # noqa: S311 - to be repeated, not to be secret
    cases = {
        (each.model, each.sampler, each.schedule, each.steps, each.guidance): each
        for each in matrix()
    }
    found: list[Case] = []
    for model in MODELS:
        chosen: list[Case] = []
        for sampler in SAMPLERS:
            own, *others = Sampler(sampler).schedules
            both = own, chance.choice(others or [Schedule.AUTOMATIC])
            cells = zip(both, chance.sample(STEPS, 2), chance.sample(GUIDANCE, 2), strict=True)
            chosen += [cases[model, sampler, *cell] for cell in cells]
        rest = [each for each in cases.values() if each.model == model and each not in chosen]
        found += [*chosen, *chance.sample(rest, A_MODEL - len(chosen))]
    return found


def verdicts(
    model: Model,
    reference: Draws,
    cases: Sequence[Asked],
    *,
    adapters: AdapterCatalog | None = None,
) -> list[Verdict]:
    """Run a model's cases in one step loop, and each by itself in diffusers; compare."""
    requests = {str(each.number): each.request for each in cases}
    ours = comparison.together(model, requests, adapters=adapters)
    found = [verdict(each, ours[str(each.number)], reference) for each in cases]
    return [
        doubted(each, model, reference, adapters=adapters) if each.kind == "different" else each
        for each in found
    ]


def verdict(case: Asked, ours: comparison.Ending, reference: Draws) -> Verdict:
    """Compare what became of a case with what diffusers makes of it."""
    try:
        theirs = reference.images(case.request)
    except NoImageError as error:
        return _without_reference(case, ours, str(error))
    if ours.failure is not None:
        return Verdict(case=case, kind="failed", detail=ours.failure.detail)
    found = comparison.difference(ours.images, theirs)
    kind = "same" if found.same else "different"
    return Verdict(case=case, kind=kind, detail=str(found), shared=bool(ours.shared))


def doubted(
    found: Verdict, model: Model, reference: Draws, *, adapters: AdapterCatalog | None = None
) -> Verdict:
    """Tell a fault from an image that rounding decides.

    A matrix product of eight rows rounds otherwise than one of a single row. Most images do not
    feel it. Where diffusers' own image is another after such a change, and the request alone
    gives what diffusers gives, no batch can keep the bound.
    """
    request = found.case.request
    theirs = reference.images(request)
    alone = comparison.difference(comparison.alone(model, request, adapters=adapters), theirs)
    rounded = comparison.difference(reference.rounded_images(request), theirs)
    if not alone.same or rounded.same:
        return replace(found, detail=f"together {found.detail}, alone {alone}")
    return replace(found, kind="sensitive", detail=f"{found.detail}, rounded {rounded}")


def _without_reference(case: Asked, ours: comparison.Ending, error: str) -> Verdict:
    """Demand an error of the request, not of the service, before any work is done."""
    if ours.failure is None:
        return Verdict(case=case, kind="not refused", detail=f"diffusers: {error}")
    refused = ours.steps == 0 and error_class(ours.failure.code).status == BAD_REQUEST
    return Verdict(
        case=case,
        kind="refused" if refused else "not refused",
        detail=f"after {ours.steps} steps, {ours.failure.code}: {ours.failure.detail} "
        f"(diffusers: {error})",
    )
