"""Kinds of single files, told by the names and shapes in their headers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from service.errors import ModelError, ModelUnsuitable
from service.models import figures, single_file
from tests.unit.models.single_file.checkpoints import (
    CLIP,
    CROSS,
    FIRST,
    REAL,
    UNET,
    checkpoint,
    open_clip,
)


@pytest.mark.parametrize("kind", REAL, ids=str)
def test_kinds(tmp_path: Path, kind: tuple[str, int]) -> None:
    """A file's kind is read from the names and shapes in its header."""
    found = single_file.read(checkpoint(tmp_path / "model.safetensors", **REAL[kind]))

    assert kind == (found.family, found.text_width)
    assert set(found.encoders) == set(figures.FIGURES[kind].parts) - {"unet", "vae"}


@pytest.mark.parametrize("channels", [4, 9])
def test_a_file_for_inpainting(tmp_path: Path, channels: int) -> None:
    """An inpainting checkpoint is told by its nine channels."""
    found = single_file.read(checkpoint(tmp_path / "model.safetensors", channels=channels))

    assert (found.input_channels, found.channels) == (channels, 4)


@pytest.mark.parametrize("channels", [5, 8])
def test_a_file_for_something_else(tmp_path: Path, channels: int) -> None:
    """One that takes depth, or the image to edit, is refused by its channels."""
    with pytest.raises(ModelUnsuitable, match=f"depth model: its UNet takes {channels} channels"):
        single_file.read(checkpoint(tmp_path / "model.safetensors", channels=channels))


def test_refiner(tmp_path: Path) -> None:
    """The SDXL refiner has only one text encoder and makes no images from text alone."""
    texts = open_clip("conditioner.embedders.0.model.", width=1280, layers=2, tokens=99)
    path = checkpoint(tmp_path / "model.safetensors", texts=texts)

    with pytest.raises(ModelUnsuitable, match="no text encoder of Stable Diffusion"):
        single_file.read(path)


def test_lora(tmp_path: Path) -> None:
    """A file that is a part of a model, or an addition to one, is told from a model."""
    path = tmp_path / "lora.safetensors"
    save_file({"lora_unet_down_blocks_0": np.zeros((1,), np.float16)}, path)

    with pytest.raises(ModelUnsuitable, match="no complete Stable Diffusion checkpoint"):
        single_file.read(path)


def test_a_damaged_file(tmp_path: Path) -> None:
    """A file that is cut short is found by its header."""
    path = checkpoint(tmp_path / "model.safetensors")
    path.write_bytes(path.read_bytes()[:-1])

    with pytest.raises(ModelError, match="cut short"):
        single_file.read(path)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("edm_vpred.sigma_max", np.ones(1), "is an EDM model"),
        ("edm_vpred.sigma_min", np.ones(1), "is an EDM model"),
        ("edm_mean", np.ones((1, 4, 1, 1)), "is an EDM model"),
        ("edm_std", np.ones((1, 4, 1, 1)), "is an EDM model"),
        ("x_pred", np.ones(0), "has metadata that is not understood .x_pred"),
        ("flow.shift", np.ones(1), "not understood .flow.shift"),
        (FIRST[:-6] + "comfy_quant", np.ones(9, np.uint8), "quantised in a way"),
        (FIRST[:-6] + "weight_scale", np.ones(1), "quantised in a way"),
        (CROSS + ".absmax", np.ones(9), "quantised in a way"),
        (CROSS + ".quant_state.bitsandbytes__nf4", np.ones(9, np.uint8), "quantised in a way"),
        (UNET + "x.weight", np.ones((2, 2), np.int8), "weights in I8"),
        (CLIP + "encoder.layers.0.mlp.fc1.other", np.ones((2, 2), np.uint8), "weights in U8"),
        (FIRST[:-6] + "bias", np.ones(2, np.bool_), "weights in BOOL"),
    ],
)
def test_what_a_file_says_of_itself(tmp_path: Path, name: str, value: Any, words: str) -> None:
    """A tensor that changes what the others mean is obeyed or refused by name."""
    path = checkpoint(tmp_path / "model.safetensors", extra={name: value})

    with pytest.raises(ModelUnsuitable, match=words):
        single_file.read(path)


@pytest.mark.parametrize(
    ("markers", "understood"),
    [
        (("v_pred",), {"v_pred"}),
        (("v_pred", "ztsnr"), {"v_pred", "ztsnr"}),
        (("ztsnr",), {"v_pred", "ztsnr"}),
        (("scaled_fp8",), {"scaled_fp8"}),
        ((), set()),
    ],
)
def test_markers(tmp_path: Path, markers: tuple[str, ...], understood: set[str]) -> None:
    """Markers that are understood are told; a zero signal means predicted velocity, too."""
    extra = {marker: np.ones(0, np.float32) for marker in markers}

    assert (
        understood == single_file.read(checkpoint(tmp_path / "x.safetensors", extra=extra)).markers
    )


@pytest.mark.parametrize(
    "name",
    [
        "betas",
        "alphas_cumprod",
        "alphas_cumprod_prev",
        "sqrt_one_minus_alphas_cumprod",
        "sqrt_recipm1_alphas_cumprod",
        "posterior_mean_coef1",
        "model_ema.decay",
        "denoiser.sigmas",
        "cond_stage_model.logit_scale",
        "model.diffusion_model.scaled_fp8",
        "cond_stage_model.transformer.text_model.embeddings.position_ids",
        "first_stage_model.loss.logvar",
    ],
)
def test_what_training_left_behind(tmp_path: Path, name: str) -> None:
    """Tensors of known meaning that draw nothing are no reason to refuse a file."""
    path = checkpoint(tmp_path / "model.safetensors", extra={name: np.ones(3, np.float32)})

    assert single_file.read(path).ignored == ()


def test_foreign_groups_are_named(tmp_path: Path) -> None:
    """Large groups of tensors that belong to no part are told, not passed over."""
    path = checkpoint(
        tmp_path / "model.safetensors",
        extra={"control_model.a.weight": np.ones((9, 9), np.float16)},
    )

    assert single_file.read(path).ignored == ("control_model",)
