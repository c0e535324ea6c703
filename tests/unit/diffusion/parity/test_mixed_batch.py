"""Every kind of request in one running batch: rows join, leave and end, and none feels another."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from service.core.inputs import Hires
from service.core.spec import GenerationSpec
from service.diffusion.adapters.store import store_of
from service.diffusion.loop.step_loop import StepLoop
from service.models.adapters.catalog import AdapterCatalog
from tests.support.models import adapter_files
from tests.support.parity import adapted, comparison, gallery
from tests.support.parity.pairs import DEMO, Pair, Pairs

pytestmark = [
    pytest.mark.filterwarnings("ignore:The configuration file of this scheduler:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Should have t[ab].=t:UserWarning"),
]

TEXT = GenerationSpec(
    prompt="a cat", negative_prompt="a dog", width=32, height=32, steps=9, seed=5, sampler="euler"
)
IMAGE = replace(TEXT, image=gallery.reference(1), strength=0.7, steps=12, sampler="dpmpp_2m")
MASK = replace(IMAGE, mask=gallery.reference(2), sampler="ddim", seed=6)
SECOND = replace(TEXT, hires=Hires(scale=2, steps=8, strength=0.5), steps=5)
WAVE = (adapted.adapter("wave", 0.8),)
REQUESTS = {
    "text": TEXT,
    "image": IMAGE,
    "leaver": replace(IMAGE, seed=1, sampler="heun"),
    "mask": MASK,
    "second": SECOND,
    "adapter": replace(TEXT, adapters=WAVE, seed=7, steps=14),
    "adapted image": replace(IMAGE, adapters=WAVE, sampler="euler_a", seed=8),
    "lanczos": replace(SECOND, hires=Hires(scale=2, resize="lanczos", strength=0.6), seed=9),
    "variation": replace(TEXT, subseed=3, subseed_strength=0.4, num_images=2, sampler="dpm2_a"),
    "schedule": replace(IMAGE, prompt="[a:b c:3] AND d", prompt_syntax="a1111", seed=11),
    "small": replace(MASK, strength=0.1, steps=20, sampler="unipc"),
    "fill": replace(MASK, mask_fill="noise", sampler="lms", guidance_scale=1.0),
}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pairs]:
    """Return a random-weight model of a kind, or the demo, loaded once."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Pairs(tmp_path_factory.mktemp("models"))
    torch.set_num_threads(threads)


def loop_of(pair: Pair, folder: Path) -> StepLoop:
    """Return a loop that knows the adapter."""
    store = store_of(pair.model, catalog=AdapterCatalog(folder))
    return StepLoop(pair.model, batch_limit=6, adapters=store)


def added(loop: StepLoop, name: str, request: GenerationSpec) -> None:
    """Add a request with its images."""
    loop.add(name, request, inputs=gallery.engine_inputs(request))


@pytest.mark.parametrize(
    "model",
    [
        "sd",
        *(pytest.param(each, marks=pytest.mark.long) for each in ("sdxl", "sd21_v", "inpaint")),
        pytest.param(DEMO, marks=pytest.mark.long),
    ],
)
def test_each_is_as_alone(pair: Pairs, tmp_path: Path, model: str) -> None:
    """One joins at every step, one leaves, and each of the others has its image of before."""
    found = pair(model)
    scale = 4 if model == DEMO else 1  # Its autoencoder shrinks by eight, the others' by two.
    requests = {
        name: replace(each, width=scale * each.width, height=scale * each.height)
        for name, each in REQUESTS.items()
    }
    targets = {"unet": ("attn", "conv1"), "text_encoder": ("q_proj",)}
    adapter_files.lora(tmp_path / "wave.safetensors", found.reference.pipeline, targets)
    loop, outcomes = loop_of(found, tmp_path), []
    for name, request in requests.items():
        added(loop, name, request)
        outcomes += loop.step()
        if name == "second":
            loop.cancel("leaver")

    endings = comparison.endings(loop, outcomes)

    for name, request in requests.items():
        if name == "leaver":
            assert not endings[name].images
            continue
        alone = loop_of(found, tmp_path)
        added(alone, name, request)
        wanted = comparison.endings(alone)[name]
        assert endings[name].failure is None, endings[name].failure
        assert endings[name].shared, name
        width, height = request.drawn_size
        assert {each.shape for each in endings[name].images} == {(height, width, 3)}
        difference = comparison.difference(endings[name].images, wanted.images)
        assert difference.same, f"{name}: {difference}"
