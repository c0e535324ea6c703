"""Requests with adapters: each image as diffusers makes it, whatever else is in the batch.

The references share no code with the service: the changes are written into the weights of a
pipeline of diffusers, by the formulas of the papers; and, where PEFT is installed, diffusers
loads the same files itself.
"""

import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from service.config.limits import limits_of
from service.config.table import Config
from service.core.limits import Sizes
from service.core.spec import GenerationSpec
from service.diffusion.adapters.store import store_of
from service.diffusion.loop.step_loop import StepLoop
from service.http.schema.generation import read_request
from service.images.infotext import infotext
from service.models.adapters.catalog import AdapterCatalog
from tests.support.models.adapter_files import KINDS, several
from tests.support.parity import adapted, comparison
from tests.support.parity.adapted import adapter
from tests.support.parity.comparison import Ending
from tests.support.parity.pairs import Pair, Pairs

pytestmark = [
    # numpy 2 asks torch's tensors for a keyword that they do not have yet, when a diffusers
    # scheduler turns its sigmas into an array. Nothing of ours is in that call.
    pytest.mark.filterwarnings(
        "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
    ),
    # diffusers corrects old scheduler files, which some of the models here have on purpose.
    pytest.mark.filterwarnings("ignore:The configuration file of this scheduler:FutureWarning"),
]

MODELS = ("sd", pytest.param("sd21_v", marks=pytest.mark.long), "sdxl")
BASE = GenerationSpec(
    prompt="a cat", negative_prompt="a dog", width=32, height=32, steps=4, seed=5, sampler="euler"
)


MIXED = {
    "none": BASE,
    "one": replace(BASE, seed=6, adapters=(adapter("attention"),)),
    "texts": replace(BASE, seed=7, adapters=(adapter("everything", 0.7, 0.3),)),
    "several": replace(
        BASE,
        seed=8,
        steps=6,
        sampler="dpmpp_2m",
        adapters=(adapter("everything", -0.5, 0.0), adapter("attention", 0.8), adapter("peft")),
    ),
    "unguided": replace(BASE, seed=9, guidance_scale=1.0, adapters=(adapter("peft", 0.4, 0.9),)),
    "dense": replace(BASE, seed=10, adapters=(adapter("lokr", 0.6), adapter("dora", 0.9))),
    "nothing": replace(BASE, seed=11, adapters=(adapter("attention", 0.0),)),
}
"""Requests that share calls of the UNet."""


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pairs]:
    """Return a random-weight model of a kind, loaded once."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Pairs(tmp_path_factory.mktemp("models"))
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of all adapters."""
    return tmp_path_factory.mktemp("loras")


def loop(pair: Pair, folder: Path) -> StepLoop:
    """Return an idle loop with the adapters of a folder."""
    return StepLoop(
        pair.model, batch_limit=8, adapters=store_of(pair.model, catalog=AdapterCatalog(folder))
    )


def made(loop: StepLoop, requests: Mapping[str, GenerationSpec]) -> dict[str, Ending]:
    """Make all images of requests that come together."""
    for job_id, request in requests.items():
        loop.add(job_id, request)
    found = comparison.endings(loop)
    assert not [each.failure for each in found.values() if each.failure]
    return found


@pytest.mark.parametrize("kind", MODELS)
def test_mixed_rows_as_in_diffusers(pair: Pairs, folder: Path, kind: str) -> None:
    """Rows with other adapters, other weights and none share calls; each is as diffusers has it."""
    files = several(folder / kind, pair(kind).reference.pipeline)
    together = made(loop(pair(kind), folder / kind), MIXED)

    for name, request in MIXED.items():
        theirs = adapted.images(pair(kind).reference, request, files)
        found = comparison.difference(together[name].images, theirs)
        assert found.same, f"{name}: {found}"
        assert together[name].shared, f"{name} shared no step"
        if any(each.weight for each in request.adapters):
            plain = pair(kind).reference.images(request)
            assert not comparison.difference(theirs, plain).same, f"{name} changes nothing"


@pytest.mark.parametrize(
    "kind", ["sd", *(pytest.param(kind, marks=pytest.mark.long) for kind in ("sd21_v", "sdxl"))]
)
def test_alone_as_in_company(pair: Pairs, folder: Path, kind: str) -> None:
    """Each request alone gives the image that it gives among the others."""
    several(folder / kind, pair(kind).reference.pipeline)
    together = made(loop(pair(kind), folder / kind), MIXED)

    for name, request in MIXED.items():
        alone = made(loop(pair(kind), folder / kind), {"it": request})["it"]
        found = comparison.difference(alone.images, together[name].images)
        assert found.same, f"{name}: {found}"


def test_a_tag_in_a_prompt_is_an_adapter(pair: Pairs, folder: Path) -> None:
    """``<lora:name:weight>`` changes the image, and just as the field ``adapters`` does."""
    several(folder / "sd", pair("sd").reference.pipeline)
    limits = limits_of(Config(), Sizes(smallest=64, usual=64))
    body = {"prompt": "a cat", "seed": 5, "width": 64, "height": 64, "prompt_syntax": "a1111"}
    requests = {
        "tag": {**body, "prompt": "a cat<lora:everything:0.3:0.7>"},
        "field": {
            **body,
            "adapters": [{"name": "everything", "weight": 0.7, "text_weight": 0.3}],
        },
        "none": body,
    }

    found = made(
        loop(pair("sd"), folder / "sd"),
        {name: read_request(fields, limits) for name, fields in requests.items()},
    )

    assert comparison.difference(found["tag"].images, found["field"].images).same
    assert not comparison.difference(found["tag"].images, found["none"].images).same
    catalog = AdapterCatalog(folder / "sd")
    hashes = catalog.hashes(catalog.find("everything"))
    assert hashes is not None
    for name in ("tag", "field"):
        finished = found[name].finished
        assert finished is not None
        assert finished.adapter_hashes == {"everything": hashes.short}
        request = read_request(requests[name], limits)
        said = {"adapter_hashes": finished.adapter_hashes}
        text = infotext(request, finished.images[0], "1", said)
        assert text.startswith("a cat <lora:" if name == "field" else "a cat<lora:")
        assert f'Lora hashes: "everything: {hashes.short}"' in text


def test_the_base_is_untouched(pair: Pairs, folder: Path) -> None:
    """Before, beside and after adapters an image without them is the same, byte for byte."""
    several(folder / "sd", pair("sd").reference.pipeline)
    before = comparison.alone(pair("sd").model, BASE)
    mixed = loop(pair("sd"), folder / "sd")
    made(mixed, MIXED)
    mixed.adapters.release_memory()

    after = made(mixed, {"it": BASE})["it"].images

    assert not any(mixed.adapters.memory.held.values())
    assert comparison.difference(after, before).equal == 1.0
    networks = pair("sd").model.family.parts.values()
    hooks = [m._forward_hooks for n in networks for part in n.values() for m in part.modules()]
    assert not any(hooks)


@pytest.mark.parametrize("form", KINDS)
def test_kinds_as_their_formulas(pair: Pairs, folder: Path, form: str) -> None:
    """LoHa, LoKr, DoRA, LoCon with a core and plain differences mean what their papers say."""
    files = several(folder / "sd", pair("sd").reference.pipeline)
    request = replace(BASE, adapters=(adapter(form, 0.8),))

    ours = made(loop(pair("sd"), folder / "sd"), {"it": request})["it"].images

    theirs = adapted.images(pair("sd").reference, request, files)
    assert comparison.difference(ours, theirs).same
    assert not comparison.difference(theirs, pair("sd").reference.images(request)).same


@pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="PEFT is not installed")
@pytest.mark.parametrize("kind", MODELS)
def test_as_diffusers_loads_them(pair: Pairs, folder: Path, kind: str) -> None:
    """The files mean what ``load_lora_weights`` and ``set_adapters`` make of them."""
    files = several(folder / kind, pair(kind).reference.pipeline)
    chosen = {name: each for name, each in MIXED.items() if name not in {"dense", "nothing"}}
    together = made(loop(pair(kind), folder / kind), chosen)

    for name, request in chosen.items():
        theirs = adapted.peft_images(pair(kind).reference, request, files)
        found = comparison.difference(together[name].images, theirs)
        assert found.same, f"{name}: {found}"
