import ast
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import service.diffusion
from service.core.spec import GenerationSpec
from service.diffusion.families.base import FamilyLimits
from service.diffusion.load import Model

FOLDER = Path(service.diffusion.__file__).parent
PARTS = {"pipeline", "unet", "transformer", "vae", "text_encoder", "text_encoder_2", "tokenizer"}
NAMES = {"sd", "sdxl"}


@pytest.mark.parametrize("part", ["loop", "memory", "conditioning"])
def test_the_loop_knows_no_family(part: str) -> None:
    """Neither by its name nor by the parts of its pipeline."""
    known = [
        (path.name, node.lineno)
        for path in (FOLDER / part).glob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (isinstance(node, ast.Attribute) and node.attr in PARTS)
        or (isinstance(node, ast.Constant) and node.value in NAMES)
    ]

    assert known == []


@pytest.mark.parametrize(("mixes", "shape"), [(False, (8, 16)), (True, None)])
def test_key_of_a_batch(sd: Model, *, mixes: bool, shape: tuple[int, int] | None) -> None:
    """It holds the shape of the latents, unless the family mixes shapes."""
    limits = FamilyLimits(
        scale_factor=2, latent_channels=4, input_channels=4, prompt_tokens=77, mixes_shapes=mixes
    )
    family: Any = SimpleNamespace(limits=limits)
    model = Model(family=family, info=sd.info, samplers=sd.samplers, device=sd.device)

    key = model.batch_key(GenerationSpec(prompt="a cat", width=32, height=16))

    assert (key.model, key.shape) == (sd.info.model_id, shape)
    assert (key.input_channels, key.tokens) == (4, 77)


def test_limits_are_read_from_the_model(sd: Model) -> None:
    """Nothing about a model is written down."""
    limits = sd.family.limits

    assert (limits.scale_factor, limits.latent_channels, limits.input_channels) == (2, 4, 4)
    assert limits.prompt_tokens == sd.info.prompt_tokens == 77
    assert limits.latent_size(32, 16) == (8, 16)
