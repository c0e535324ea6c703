"""VAEs of the user's choice: for all images, or for previews."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from safetensors.torch import load_file, save_file

from service.config.table import Config
from service.core.events import Previewed
from service.core.spec import GenerationSpec
from service.diffusion.load import Model, load_model
from service.diffusion.loop.step_loop import StepLoop
from service.errors import ModelError, ModelMissing, ModelUnsuitable
from service.models.catalog import resolve
from tests.support.models import single_file, tiny_models
from tests.support.parity import comparison
from tests.support.parity.references import Reference

REQUEST = GenerationSpec(prompt="a cat", width=32, height=32, steps=3, seed=5)


def autoencoder(path: Path) -> Path:
    """Write an autoencoder of the tiny models' shape, with other weights than theirs."""
    torch.manual_seed(11)
    tiny_models.autoencoder().save_pretrained(path)
    return path


def small(path: Path) -> Path:
    """Write an AutoencoderTiny for the same latents."""
    torch.manual_seed(12)
    blocks: dict[str, Any] = {
        f"{side}_{name}": value
        for side in ("encoder", "decoder")
        for name, value in (("block_out_channels", (16, 16)),)
    }
    AutoencoderTiny(**blocks, num_encoder_blocks=(1, 1), num_decoder_blocks=(1, 1)).save_pretrained(
        path
    )
    return path


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_file(path / "diffusion_pytorch_model.safetensors")


def as_file(source: Path, path: Path) -> Path:
    save_file(weights(source), path)
    return path


def compvis(source: Path, path: Path, *, prefix: str) -> Path:
    """Write an autoencoder with CompVis' names, as files of VAEs mostly have them."""
    tensors = {}
    for key, value in weights(source).items():
        name = single_file._renamed(single_file._counted_from_the_end(key, 1), single_file.VAE)
        shaped = value[:, :, None, None] if "attn_1" in name and value.ndim == 2 else value
        tensors[f"{prefix}{name}"] = shaped.contiguous()
    save_file(tensors, path)
    return path


def loaded(path: Path, cache: Path, **settings: Any) -> Model:
    config = Config(model_cache_dir=cache, device="cpu", **settings)
    return load_model(resolve(str(path), cache), config)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Return a cache with VAEs in every form."""
    folder = tmp_path / "vae"
    other = autoencoder(folder / "other")
    as_file(other, folder / "plain.safetensors")
    compvis(other, folder / "compvis.safetensors", prefix="")
    compvis(other, folder / "prefixed.safetensors", prefix="first_stage_model.")
    snapshot = tmp_path / "models--some--vae" / "snapshots" / "abc"
    shutil.copytree(other, snapshot)
    tiny = small(folder / "small")
    as_file(tiny, folder / "smallfile.safetensors")
    return tmp_path


@pytest.mark.parametrize(
    "name", ["other", "plain", "plain.safetensors", "compvis", "prefixed", "some/vae"]
)
def test_another_vae_decodes(folder: Callable[[str], Path], cache: Path, name: str) -> None:
    """As in diffusers, where it is exchanged in the pipeline; whatever form it has."""
    reference = Reference(folder("sd"))
    own = reference.images(REQUEST)
    reference.pipeline.vae = AutoencoderKL.from_pretrained(cache / "vae" / "other")
    theirs = reference.images(REQUEST)

    model = loaded(folder("sd"), cache, vae=name)

    found = comparison.difference(comparison.alone(model, REQUEST), theirs)
    assert found.same, found
    assert not comparison.difference(own, theirs).same
    assert model.info.vae == name
    assert model.info.vae == name


def test_a_setting_may_name_a_path(folder: Callable[[str], Path], cache: Path) -> None:
    """The operator's own words are not those of a request."""
    path = cache / "vae" / "other"
    model = loaded(folder("sd"), cache / "elsewhere", vae=str(path))
    assert model.info.vae == str(path)


def test_a_recipe_may_name_one(folder: Callable[[str], Path], cache: Path) -> None:
    """It belongs to that model alone; the setting beats it."""
    copy = shutil.copytree(folder("sd"), cache / "mine")
    (cache / "mine.recipe.json").write_text('{"vae": "other"}', encoding="utf-8")
    assert loaded(copy, cache).info.vae == "other"
    assert loaded(copy, cache, vae="plain").info.vae == "plain"


@pytest.mark.parametrize("vae", ["../other", "/etc", "a/b/c", ".hidden"])
def test_a_recipe_names_no_path(folder: Callable[[str], Path], cache: Path, vae: str) -> None:
    """Recipes travel with models, and come from others."""
    copy = shutil.copytree(folder("sd"), cache / "mine")
    (cache / "mine.recipe.json").write_text(f'{{"vae": "{vae}"}}', encoding="utf-8")
    with pytest.raises(ModelUnsuitable, match="vae must be the name of a VAE"):
        loaded(copy, cache)


def test_a_tiny_vae_in_a_single_file_has_the_shape_of_taesd(
    folder: Callable[[str], Path], cache: Path
) -> None:
    """A file has no figures of its own: one of another shape is refused."""
    with pytest.raises(ModelUnsuitable, match=r"smallfile\.safetensors.* configuration"):
        loaded(folder("sd"), cache, tiny_vae="smallfile", tiny_vae_use="all")


def test_a_tiny_vae_decodes_everything_where_it_may(
    folder: Callable[[str], Path], cache: Path
) -> None:
    """As in diffusers, where it takes the place of the other."""
    name = "small"
    reference = Reference(folder("sd"))
    reference.pipeline.vae = AutoencoderTiny.from_pretrained(cache / "vae" / name)
    theirs = reference.images(REQUEST)

    model = loaded(folder("sd"), cache, tiny_vae=name, tiny_vae_use="all")

    found = comparison.difference(comparison.alone(model, REQUEST), theirs)
    assert found.same, found
    assert model.info.vae == name


def test_a_tiny_vae_for_previews_leaves_images_as_they_are(
    folder: Callable[[str], Path], cache: Path
) -> None:
    """The previews are its own, as large as the image up to 256 pixels."""
    plain, model = loaded(folder("sd"), cache), loaded(folder("sd"), cache, tiny_vae="small")
    assert model.info.vae == ""
    loop = StepLoop(model, batch_limit=1)
    loop.previews._clock = iter(range(0, 1000, 10)).__next__
    loop.previews.watch("a", wanted=True)
    loop.add("a", REQUEST)
    found = []
    while loop.busy:
        found += [each for each in loop.step() if isinstance(each, Previewed)]
    assert [(each.width, each.height) for each in found] == [(32, 32)] * 3
    assert len({each.pixels for each in found}) == 3
    ours, theirs = comparison.alone(model, REQUEST), comparison.alone(plain, REQUEST)
    assert all((one == other).all() for one, other in zip(ours, theirs, strict=True))


def test_a_preview_of_a_tiny_vae_is_small(folder: Callable[[str], Path], cache: Path) -> None:
    """A large one would take the network's time for nothing."""
    model = loaded(folder("sd"), cache, tiny_vae="small")
    loop = StepLoop(model, batch_limit=1)
    loop.previews.watch("a", wanted=True)
    loop.add("a", GenerationSpec(prompt="a cat", width=320, height=128, steps=1, seed=5))
    found: list[Previewed] = []
    while loop.busy:
        found += [each for each in loop.step() if isinstance(each, Previewed)]
    assert [(each.width, each.height) for each in found] == [(160, 64)]
    assert np.frombuffer(found[0].pixels, np.uint8).std() > 0


@pytest.mark.parametrize("settings", [{"vae": "nothing"}, {"tiny_vae": "nothing"}])
def test_a_vae_that_is_not_there_is_named(
    folder: Callable[[str], Path], cache: Path, settings: dict[str, str]
) -> None:
    """With the place where it is looked for."""
    with pytest.raises(ModelMissing, match=r"There is no VAE 'nothing' in .*vae"):
        loaded(folder("sd"), cache, **settings)


def test_a_vae_of_other_latents_is_refused(folder: Callable[[str], Path], cache: Path) -> None:
    """Its images would be noise, or the decoding would fail."""
    tiny_models.autoencoder(latent_channels=8).save_pretrained(cache / "vae" / "wide")
    with pytest.raises(ModelUnsuitable, match=r"latents of 8 channels.* the model has 4"):
        loaded(folder("sd"), cache, vae="wide")


def test_something_else_is_no_vae(folder: Callable[[str], Path], cache: Path) -> None:
    """A LoRA in the folder of VAEs, a UNet, a damaged file."""
    shutil.copytree(folder("sd") / "unet", cache / "vae" / "unet")
    with pytest.raises(ModelUnsuitable, match="is a UNet2DConditionModel, no VAE"):
        loaded(folder("sd"), cache, vae="unet")
    save_file({"lora.weight": torch.zeros(2)}, cache / "vae" / "lora.safetensors")
    with pytest.raises(ModelUnsuitable, match="holds no VAE"):
        loaded(folder("sd"), cache, vae="lora")
    (cache / "vae" / "bad.safetensors").write_bytes(b"{")
    with pytest.raises(ModelError, match=r"bad\.safetensors"):
        loaded(folder("sd"), cache, vae="bad")
