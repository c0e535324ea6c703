"""Recipes draw what the publishers' own lines of diffusers draw."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    LCMScheduler,
    TCDScheduler,
)

from service.config.limits import limits_of
from service.config.table import Config
from service.core.limits import Sizes
from service.core.recipe import Recipe
from service.core.spec import GenerationSpec
from service.http.schema.generation import read_request
from service.models.defaults import table
from tests.support.parity import comparison
from tests.support.parity.pairs import Pairs
from tests.support.parity.references import Reference

# numpy 2 asks torch's tensors for a keyword that they do not have yet, when a diffusers
# scheduler turns its sigmas into an array. Nothing of ours is in that call.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)

TRAILING: Final = {"timestep_spacing": "trailing"}
# XL's own file has it, which the publishers begin with: their latents are not pixels.
WHOLE: Final = {**TRAILING, "clip_sample": False}
PUBLISHED: Final[Mapping[str, tuple[Any, Mapping[str, Any], int, float, float]]] = {
    "sdxl-turbo": (EulerAncestralDiscreteScheduler, TRAILING, 4, 0.0, 0.0),
    "sd-turbo": (EulerDiscreteScheduler, TRAILING, 4, 0.0, 0.0),
    "sdxl_lightning_8step": (EulerDiscreteScheduler, TRAILING, 8, 0.0, 0.0),
    "Hyper-SDXL-2steps-lora": (DDIMScheduler, WHOLE, 2, 0.0, 0.0),
    "Hyper-SDXL-1step-lora": (TCDScheduler, {}, 1, 0.0, 1.0),
    "Hyper-SD15-8steps-CFG-lora": (DDIMScheduler, WHOLE, 8, 5.0, 0.0),
    "lcm-lora-sdxl": (LCMScheduler, {}, 4, 1.0, 0.0),
    "TCD-SDXL-LoRA": (TCDScheduler, {}, 4, 0.0, 0.3),
    "pcm_sdxl_smallcfg_4step": (DDIMScheduler, WHOLE, 4, 1.0, 0.0),
    "pcm_sdxl_normalcfg_8step": (DDIMScheduler, WHOLE, 8, 7.5, 0.0),
    "pcm_sdxl_lcmlike_lora": (LCMScheduler, {}, 4, 1.0, 0.0),
}
"""By a name on the hub: scheduler class and arguments, steps, guidance and eta of the cards."""


class Published(Reference):
    """A reference that takes its scheduler from a publisher's lines."""

    lines: tuple[Any, Mapping[str, Any]] = (None, {})

    def scheduler(self, sampler: str, schedule: str = "automatic", steps: int = 8) -> Any:
        del sampler, schedule, steps
        kind, keywords = self.lines
        return kind.from_config(self.config, **keywords)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pairs]:
    """Return a random-weight model of a kind, loaded once."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Pairs(tmp_path_factory.mktemp("models"))
    torch.set_num_threads(threads)


def asked(recipe: Recipe | None) -> GenerationSpec:
    """Return a request that names nothing but its size."""
    assert recipe is not None
    tiny = Sizes(smallest=64, usual=64)
    fields = {"prompt": "a cat", "seed": 5, "width": 64, "height": 64}
    return read_request(fields, limits_of(Config(), tiny, recipe))


@pytest.mark.parametrize("kind", ["sd", pytest.param("sdxl", marks=pytest.mark.long)])
def test_recipes_as_their_publishers_draw(pair: Pairs, kind: str) -> None:
    """A request that leaves all to the recipe gives, in one batch, the image of the card."""
    found = pair(kind)
    reference = Published(Path(found.reference.folder))
    requests = {name: asked(table.by_name(name)) for name in PUBLISHED}

    together = comparison.together(found.model, requests)

    for name, (scheduler, keywords, steps, guidance, eta) in PUBLISHED.items():
        request = requests[name]
        assert (request.steps, request.guidance_scale, request.eta) == (steps, guidance, eta), name
        reference.lines = scheduler, keywords
        theirs = reference.images(request)
        difference = comparison.difference(together[name].images, theirs)
        assert difference.same, f"{name}: {difference}"


def test_every_recipe_is_checked() -> None:
    """A new row of the table needs its publisher's lines here."""
    checked = {recipe.name for name in PUBLISHED if (recipe := table.by_name(name)) is not None}

    # DMD2's card has a list of timesteps of its own, which docs/MODELS.md says.
    assert checked | {"dmd2"} == {row.recipe.name for row in table.PARTS}
