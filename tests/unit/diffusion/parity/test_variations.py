"""Variations: the first noise lies between those of two seeds, and all else is the seed's.

diffusers has none; its pipelines are given the noise that AUTOMATIC1111's ``slerp`` makes, which is
written here once more.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.pipelines.stable_diffusion import pipeline_stable_diffusion as text
from diffusers.pipelines.stable_diffusion import pipeline_stable_diffusion_img2img as image
from diffusers.pipelines.stable_diffusion_xl import pipeline_stable_diffusion_xl as text_xl
from diffusers.pipelines.stable_diffusion_xl import pipeline_stable_diffusion_xl_img2img as image_xl

from service.core.sampler import Sampler
from service.core.spec import GenerationSpec
from tests.support.parity import comparison, gallery
from tests.support.parity.pairs import Pairs

pytestmark = [
    pytest.mark.filterwarnings("ignore:The configuration file of this scheduler:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Should have t[ab].=t:UserWarning"),
]

REQUEST = GenerationSpec(
    prompt="a cat",
    negative_prompt="a dog",
    width=32,
    height=16,
    steps=6,
    seed=5,
    subseed=77,
    subseed_strength=0.3,
    num_images=2,
)
KINDS = ("sd", "sdxl", "sd21_v")
FEW = ("euler", "euler_a")
"""Samplers of the short run."""

REDRAWN = replace(REQUEST, image=gallery.reference(1), strength=0.7)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pairs]:
    """Return a random-weight model of a kind, loaded once."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Pairs(tmp_path_factory.mktemp("models"))
    torch.set_num_threads(threads)


def slerp(low: np.ndarray, high: np.ndarray, share: float) -> np.ndarray:
    """Return what lies between two noises ``[channels, height, width]``, column by column."""
    lengths = np.linalg.norm(low, axis=1) * np.linalg.norm(high, axis=1)
    angle = np.arccos((low * high).sum(axis=1) / lengths)
    weights = (np.sin(part * angle) / np.sin(angle) for part in (1 - share, share))
    one, other = (each[:, None] for each in weights)
    return np.asarray(one * low + other * high)


def reference(pair: Any, request: GenerationSpec, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return the images of diffusers, whose first noise is on the way to the subseed's."""
    plain = replace(request, subseed_strength=0, num_images=1)
    found = []
    for subseed in request.subseeds:

        def mixed(shape: Any, *, subseed: int = subseed, **given: Any) -> torch.Tensor:
            (generator,) = given["generator"]
            low, high = (
                torch.randn(shape, generator=each)[0].double().numpy()
                for each in (generator, torch.Generator().manual_seed(subseed))
            )
            between = slerp(low, high, request.subseed_strength)
            return torch.from_numpy(between[None]).to(given["dtype"])

        with monkeypatch.context() as patched:
            for module in (text, image, text_xl, image_xl):
                patched.setattr(module, "randn_tensor", mixed)
            found += pair.reference.images(plain)
    return found


@pytest.mark.parametrize("request_of", [REQUEST, REDRAWN], ids=["text", "image"])
@pytest.mark.parametrize(
    ("sampler", "kind"),
    [
        *product(FEW, KINDS[:2]),
        *(pytest.param(sampler, KINDS[2], marks=pytest.mark.long) for sampler in FEW),
        *(
            # Noise is mixed before a sampler has it: each of the others has one family, in turn.
            pytest.param(sampler, KINDS[number % 3], marks=pytest.mark.long)
            for number, sampler in enumerate(each for each in Sampler if each not in FEW)
        ),
    ],
)
def test_variations_as_automatic1111_draws_them(
    pair: Pairs,
    monkeypatch: pytest.MonkeyPatch,
    request_of: GenerationSpec,
    kind: str,
    sampler: str,
) -> None:
    """Every image has the seed, and each the next subseed; batch-mates change nothing."""
    found, request = pair(kind), replace(request_of, sampler=sampler)
    theirs = reference(found, request, monkeypatch)

    together = comparison.together(
        found.model, {"a": request, "b": replace(request, subseed=9, seed=1)}
    )

    assert together["a"].shared
    assert comparison.difference(together["a"].images, theirs).same
    assert not comparison.difference(theirs[:1], theirs[1:]).same


def test_no_strength_is_no_variation(pair: Pairs) -> None:
    """The subseed changes nothing then, and seeds count up as ever."""
    plain = replace(REQUEST, subseed_strength=0)
    model = pair("sd").model

    one, other = (comparison.alone(model, replace(plain, subseed=each)) for each in (1, 2))

    assert comparison.difference(one, other).equal == 1
    assert plain.seeds == (5, 6)
