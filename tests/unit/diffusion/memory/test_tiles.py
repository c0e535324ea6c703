from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import structlog
import torch
from diffusers import AutoencoderTiny

from service.diffusion.load import Model
from service.diffusion.loop.decode import decode
from service.diffusion.memory.tiles import (
    SMALLEST,
    SMALLEST_ENCODED,
    TRIED_AGAIN_AFTER,
    Tiles,
)
from service.models.catalog import DEMO_FOLDER


def latents(channels: int = 4, height: int = 16, width: int = 24) -> torch.Tensor:
    """Draw latents of an image that is wider than high."""
    return torch.randn(1, channels, height, width, generator=torch.Generator().manual_seed(3))


def tiles(model: Model) -> Tiles:
    """Return the tiles of a model's VAE."""
    return Tiles(model.family.pipeline.vae, model.family.pipeline.vae_scale_factor)


@pytest.mark.parametrize(("kind", "channels"), [("sd", 4), ("tiny_vae", 12)])
def test_less_is_decoded_at_a_time(model: Callable[[str], Model], kind: str, channels: int) -> None:
    """No tile has more than half the longer side; the image has the size and look it had."""
    loaded = model(kind)
    vae = loaded.family.pipeline.vae
    given = latents(channels)
    seen: list[tuple[int, ...]] = []
    hook = vae.decoder.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[-2:]))
    before = dict(vars(vae))

    with torch.inference_mode():
        whole = decode(loaded, given, seed=1)
        whole_shapes = seen.copy()
        seen.clear()
        cut = tiles(loaded)
        cut.begin(given.shape)
        with cut.applied(given.shape):
            tiled = decode(loaded, given, seed=1)

    hook.remove()
    assert whole_shapes == [(16, 24)]
    assert len(seen) > 1
    assert max(max(shape) for shape in seen) == 12
    assert (tiled.width, tiled.height) == (whole.width, whole.height)
    images = [np.frombuffer(p.pixels, np.uint8).astype(float) for p in (whole, tiled)]
    assert np.abs(images[0] - images[1]).mean() < 16
    assert {name: vars(vae)[name] for name in before if name != "_forward_pre_hooks"} == {
        name: value for name, value in before.items() if name != "_forward_pre_hooks"
    }


@pytest.mark.parametrize(("kind", "channels"), [("sd", 4), ("tiny_vae", 12)])
def test_tiles_above_a_size(model: Callable[[str], Model], kind: str, channels: int) -> None:
    """Up to it an image is decoded whole, beyond it in tiles of that size or less."""
    loaded = model(kind)
    vae, factor = loaded.family.pipeline.vae, loaded.family.pipeline.vae_scale_factor
    cut = Tiles(vae, factor, above=16 * factor)
    seen: list[tuple[int, ...]] = []
    hook = vae.decoder.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[-2:]))
    shown = []
    with torch.inference_mode():
        for width in (16, 24):
            given = latents(channels, 16, width)
            with cut.applied(given.shape):
                shown.append((decode(loaded, given, seed=1).width, cut.used(given.shape), [*seen]))
            seen.clear()
    hook.remove()

    assert shown[0] == (16 * factor, False, [(16, 16)])
    assert shown[1][:2] == (24 * factor, True)
    assert len(shown[1][2]) > 1
    assert max(max(shape) for shape in shown[1][2]) == 16
    assert not vae.use_tiling


@pytest.mark.parametrize("above", [0, 19])
@pytest.mark.parametrize("size", [(32, 40), (44, 16), (37, 21), (65, 65), (20, 18)])
@pytest.mark.parametrize("kind", ["sd", "demo"])
def test_tiles_add_up_to_the_image(
    model: Callable[[str], Model], kind: str, size: tuple[int, int], above: int
) -> None:
    """Halved once or twice, or above a size: encoded and decoded it has its size and its look."""
    vae: Any = model("sd").family.pipeline.vae
    if kind == "demo":
        vae = AutoencoderTiny.from_pretrained(DEMO_FOLDER / "vae", use_safetensors=True)
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    given = latents(4, *size)
    works: dict[int, Callable[[], torch.Tensor]] = {
        SMALLEST: lambda: vae.decode(given, return_dict=False)[0],
        SMALLEST_ENCODED: lambda: _means(vae.encode(image)),
    }
    with torch.inference_mode():
        image: torch.Tensor = works[SMALLEST]().clamp(-1, 1)
        for smallest, work in works.items():
            whole = work()
            cut = Tiles(vae, factor, above=above * factor, smallest=smallest)
            for _ in range(3):
                with cut.applied(given.shape):
                    tiled = work()
                assert tiled.shape == whole.shape
                assert tiled.isfinite().all()
                assert (tiled - whole).abs().mean() < whole.std()
                if cut.possible(given.shape):
                    cut.begin(given.shape)


def _means(encoded: Any) -> torch.Tensor:
    found: torch.Tensor = (
        encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist.mean
    )
    return found


def test_tiles_above_a_size_are_halved_where_they_do_not_fit(sd: Model) -> None:
    """And have that size again when the smaller ones are given up."""
    factor = sd.family.pipeline.vae_scale_factor
    cut, given = Tiles(sd.family.pipeline.vae, factor, above=20 * factor), latents(4, 32, 40)
    sides = []
    for _ in range(2):
        with cut.applied(given.shape):
            sides.append(sd.family.pipeline.vae.tile_latent_min_size)
        assert cut.possible(given.shape) == (len(sides) == 1)
        if len(sides) == 1:
            cut.begin(given.shape)
            cut.begin(given.shape)
    for _ in range(TRIED_AGAIN_AFTER):
        with cut.applied(given.shape):
            sides.append(sd.family.pipeline.vae.tile_latent_min_size)
    assert (sides[0], sides[1], sides[-1]) == (20, 12, 20)


def test_a_vae_without_tiles_says_so() -> None:
    """A setting that does nothing is not left unsaid."""
    with structlog.testing.capture_logs() as lines:
        Tiles(SimpleNamespace(), 8, above=512)
    assert [line["event"] for line in lines] == ["vae_tiling_unsupported"]


def test_only_what_is_as_large_is_cut(sd: Model) -> None:
    """Smaller images than the one that did not fit are decoded whole."""
    cut = tiles(sd)

    cut.begin(latents().shape)

    assert cut.used(latents().shape)
    assert not cut.used(latents(width=16).shape)


def test_tiles_that_did_not_fit_either(sd: Model) -> None:
    """They are made smaller once; from the smallest there is no way on."""
    cut = tiles(sd)
    large = latents(height=64, width=64)
    sides = []

    while cut.possible(large.shape):
        cut.begin(large.shape)
        with cut.applied(large.shape):
            sides.append(sd.family.pipeline.vae.tile_latent_min_size)

    assert sides == [32, 16]
    cut.begin(latents(height=9, width=9).shape)
    assert not cut.possible(latents(height=9, width=9).shape)


def test_a_whole_one_is_tried_again(sd: Model) -> None:
    """After a number of images in tiles memory may suffice again."""
    cut = tiles(sd)
    cut.begin(latents().shape)

    for _ in range(TRIED_AGAIN_AFTER):
        assert cut.used(latents().shape)
        with cut.applied(latents().shape):
            pass

    assert not cut.used(latents().shape)
    assert cut.possible(latents().shape)


def test_too_small_to_cut(sd: Model) -> None:
    """Of eight latents along a side no smaller tiles are made."""
    assert not tiles(sd).possible(latents(height=8, width=8).shape)


def test_vae_that_knows_no_tiles() -> None:
    """Such an action is left out."""
    assert not Tiles(SimpleNamespace(), 8).possible(latents().shape)


def test_setting_asks_for_smaller_ones_already(sd: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles that did not fit are not made larger."""
    vae = sd.family.pipeline.vae
    monkeypatch.setattr(vae, "use_tiling", True)
    monkeypatch.setattr(vae, "tile_latent_min_size", 10)
    cut = tiles(sd)
    cut.begin(latents().shape)

    with cut.applied(latents().shape):
        assert vae.tile_latent_min_size == 10
