"""Same seed, same picture: as diffusers makes it, and whatever else the GPU is doing."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from scripts import parity
from service.config import SAMPLERS
from service.diffusion.generation import GenerationRequest
from service.diffusion.load import Model, load_model
from service.models import catalog
from tests import tiny_models

pytestmark = [
    # numpy 2 asks torch's tensors for a keyword that they do not have yet, when a diffusers
    # scheduler turns its sigmas into an array. Nothing of ours is in that call.
    pytest.mark.filterwarnings(
        "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
    )
]

REQUEST = GenerationRequest(
    prompt="a cat", negative_prompt="a dog", width=32, height=16, steps=5, seed=5, num_images=2
)
KINDS = ("sd", "v_prediction", "sdxl", "lcm", "tiny_vae")
FEW = ("dpmpp_2m", "euler_a", "heun")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Model]:
    """Return a random-weight model of a kind, or the demo, loaded once."""
    root: Path = tmp_path_factory.mktemp("models")
    torch.set_num_threads(1)
    loaded: dict[str, Model] = {}

    def get(kind: str) -> Model:
        if kind not in loaded:
            source = catalog.resolve(
                kind if kind == "demo" else str(getattr(tiny_models, f"build_{kind}")(root / kind)),
                root,
            )
            loaded[kind] = load_model(source, cache_dir=root)
        return loaded[kind]

    return get


CASES = pytest.mark.parametrize(
    ("kind", "sampler"),
    [
        *(("sd", sampler) for sampler in SAMPLERS),
        *((kind, sampler) for kind in KINDS[1:] for sampler in FEW),
    ],
)


@CASES
def test_alone_as_in_diffusers(model: Callable[[str], Model], kind: str, sampler: str) -> None:
    """A request gives the pictures that calling the diffusers pipeline gives."""
    request = replace(REQUEST, sampler=sampler)

    found = parity.alone(model(kind), request)

    assert parity.difference(found, parity.from_diffusers(model(kind), request)).same


@CASES
def test_in_company_as_alone(model: Callable[[str], Model], kind: str, sampler: str) -> None:
    """Others that join, leave and differ in everything change nothing but rounding."""
    request = replace(REQUEST, sampler=sampler)

    found = parity.in_company(model(kind), request)

    assert parity.difference(found, parity.alone(model(kind), request)).same


@pytest.mark.parametrize("steps", [1, 2, 50])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_fewest_and_most_steps(model: Callable[[str], Model], sampler: str, steps: int) -> None:
    """The bound holds at both ends of what may be asked for."""
    request = replace(REQUEST, sampler=sampler, steps=steps, width=16, num_images=1)

    found = parity.alone(model("sd"), request)

    assert parity.difference(found, parity.from_diffusers(model("sd"), request)).same


@pytest.mark.parametrize(
    "changes",
    [
        {"guidance_scale": 1.0},
        {"guidance_scale": 0.0},
        {"negative_prompt": ""},
        {"prompt": "x" * 90},
    ],
)
@pytest.mark.parametrize("kind", ["sd", "sdxl", "lcm"])
def test_prompts_and_guidance(
    model: Callable[[str], Model], kind: str, changes: dict[str, object]
) -> None:
    """Without guidance, without negative prompt and with too long a prompt it holds too."""
    request = replace(REQUEST, num_images=1, **changes)  # type: ignore[arg-type]

    found = parity.alone(model(kind), request)

    assert parity.difference(found, parity.from_diffusers(model(kind), request)).same


def test_the_bound_tells_pictures_apart(model: Callable[[str], Model]) -> None:
    """Another prompt, sampler, guidance scale or seed does not pass for the same picture."""
    found = parity.alone(model("sd"), REQUEST)

    for change in ({"prompt": "dog"}, {"sampler": "ddim"}, {"guidance_scale": 3.0}, {"seed": 6}):
        other = parity.alone(model("sd"), replace(REQUEST, **change))
        assert not parity.difference(found, other).same, change


@pytest.mark.parametrize("sampler", FEW)
@pytest.mark.skipif(
    not (catalog.DEMO_FOLDER / catalog.INDEX).is_file(), reason="the demo model is not bundled"
)
def test_demo(model: Callable[[str], Model], sampler: str) -> None:
    """The bundled model, with weights that draw something, keeps the bound."""
    request = replace(REQUEST, prompt="a red house", width=256, height=256, sampler=sampler)

    found = parity.alone(model("demo"), request)

    assert parity.difference(found, parity.from_diffusers(model("demo"), request)).same
    assert parity.difference(parity.in_company(model("demo"), request), found).same
