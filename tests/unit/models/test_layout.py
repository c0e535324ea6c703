import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from service.errors import ModelError
from service.models import layout
from service.models.layout import (
    SingleFile,
    folder_family,
    single_file,
    single_file_config,
    variant,
)


@pytest.fixture
def copy(folder: Callable[[str], Path], tmp_path: Path) -> Path:
    """Return a copy of the tiny SD model that a test may damage."""
    return shutil.copytree(folder("sd"), tmp_path / "copy")


def edit(path: Path, **changes: Any) -> None:
    """Change keys of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("kind", "family"), [("sd", "sd"), ("sdxl", "sdxl"), ("lcm", "sd"), ("tiny_vae", "sd")]
)
def test_families(folder: Callable[[str], Path], kind: str, family: str) -> None:
    """A folder's own index tells which family it belongs to."""
    assert family == folder_family(folder(kind))


def test_consistency_model(copy: Path) -> None:
    """A latent consistency model has the parts of SD and is loaded as one."""
    edit(copy / "model_index.json", _class_name="LatentConsistencyModelPipeline")

    assert folder_family(copy) == "sd"


@pytest.mark.parametrize("kind", ["StableDiffusion3Pipeline", "FluxPipeline"])
def test_other_kinds(copy: Path, kind: str) -> None:
    """Another kind of model is named, beside what is supported."""
    edit(copy / "model_index.json", _class_name=kind)

    with pytest.raises(ModelError, match=rf"is a {kind}\. Supported are .*1\.x, 2\.x and XL"):
        folder_family(copy)


@pytest.mark.parametrize(
    ("part", "named"),
    [
        ("unet", ["my_code", "MyUNet"]),
        ("vae", ["diffusers", "ConsistencyDecoderVAE"]),
        ("text_encoder", [None, None]),
        ("text_encoder", None),
    ],
)
def test_other_parts(copy: Path, part: str, named: object) -> None:
    """A part of an unknown class is refused; in particular no code of the model is run."""
    edit(copy / "model_index.json", **{part: named})

    with pytest.raises(ModelError, match=f"its {part} is"):
        folder_family(copy)


def test_inpainting_model(copy: Path) -> None:
    """A UNet that wants more channels than the VAE gives is no text-to-image model."""
    edit(copy / "unet" / "config.json", in_channels=9)

    with pytest.raises(ModelError, match="takes 9 channels and the VAE gives 4"):
        folder_family(copy)


def test_foreign_noise(copy: Path) -> None:
    """A model trained on a noise schedule that the samplers do not follow is refused."""
    edit(copy / "scheduler" / "scheduler_config.json", _class_name="EDMDPMSolverMultistepScheduler")

    with pytest.raises(ModelError, match="needs EDMDPMSolverMultistepScheduler"):
        folder_family(copy)


def test_no_weights(copy: Path) -> None:
    """A part without weights is named."""
    (copy / "vae" / "diffusion_pytorch_model.safetensors").unlink()

    with pytest.raises(ModelError, match="vae has no weights"):
        folder_family(copy)


def test_pickled_weights(copy: Path) -> None:
    """Pickled weights are not read, and the message says why."""
    weights = copy / "vae" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))

    with pytest.raises(ModelError, match="only pickled weights, which can run code"):
        folder_family(copy)


def test_no_tokenizer(copy: Path) -> None:
    """A tokenizer without its files is not taken for one that knows no word."""
    shutil.rmtree(copy / "tokenizer")

    with pytest.raises(ModelError, match="tokenizer has no vocabulary"):
        folder_family(copy)


@pytest.mark.parametrize("kept", [0, 4, 100, 2000])
def test_truncated_weights(copy: Path, kept: int) -> None:
    """A file that is cut short, even behind its header, is found before it is loaded."""
    weights = copy / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:kept])

    with pytest.raises(ModelError, match=r"cut short or damaged .* Fetch the model again"):
        folder_family(copy)


def test_last_byte_missing(copy: Path) -> None:
    """Even the last byte is missed."""
    weights = copy / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])

    with pytest.raises(ModelError, match="cut short"):
        folder_family(copy)


@pytest.mark.parametrize("content", ["", "{", "[]"])
def test_damaged_config(copy: Path, content: str) -> None:
    """A part's configuration that cannot be read is named."""
    (copy / "unet" / "config.json").write_text(content)

    with pytest.raises(ModelError, match=r"unet/config\.json"):
        folder_family(copy)


def test_missing_config(copy: Path) -> None:
    """A part without configuration is named."""
    (copy / "vae" / "config.json").unlink()

    with pytest.raises(ModelError, match=r"vae/config\.json cannot be read"):
        folder_family(copy)


@pytest.mark.parametrize(
    ("names", "half", "expected"),
    [
        (["model.safetensors"], True, None),
        (["model.safetensors", "model.fp16.safetensors"], True, "fp16"),
        (["model.safetensors", "model.fp16.safetensors"], False, None),
        (["model.fp16.safetensors"], False, "fp16"),
        ([], True, None),
    ],
)
def test_variant(tmp_path: Path, names: list[str], expected: str | None, *, half: bool) -> None:
    """Half-precision files are taken for a GPU, or where there are no others."""
    (tmp_path / "unet").mkdir()
    for name in names:
        (tmp_path / "unet" / name).write_bytes(b"")

    assert expected == variant(tmp_path, half=half)


TINY = SingleFile(family="sd", text_width=32, unet_width=32)
CROSS = layout.UNET_PREFIX + "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
FIRST = layout.UNET_PREFIX + "input_blocks.0.0.weight"
VAE = "first_stage_model.post_quant_conv.weight"


def checkpoint(path: Path, *, channels: int = 4, width: int = 768, text: str = "") -> Path:
    """Write the few keys of a single-file checkpoint by which its kind is told."""
    shapes = {FIRST: (8, channels, 3, 3), CROSS: (8, width), VAE: (4, 4, 1, 1)}
    if text:
        shapes[text] = (1, 1)
    save_file({key: np.zeros(shape, np.float16) for key, shape in shapes.items()}, path)
    return path


@pytest.mark.parametrize(
    ("text", "width", "family"),
    [
        ("cond_stage_model.transformer.text_model.x", 768, "sd"),
        ("cond_stage_model.model.transformer.x", 1024, "sd"),
        ("conditioner.embedders.1.model.x", 2048, "sdxl"),
    ],
)
def test_single_file(tmp_path: Path, text: str, width: int, family: str) -> None:
    """A single file's kind is read from the names and shapes in its header."""
    path = checkpoint(tmp_path / "model.safetensors", text=text, width=width)

    assert single_file(path) == SingleFile(family=family, text_width=width, unet_width=8)


def test_single_file_for_inpainting(tmp_path: Path) -> None:
    """An inpainting checkpoint is told by its nine channels."""
    path = checkpoint(tmp_path / "model.safetensors", channels=9, text="cond_stage_model.x")

    with pytest.raises(ModelError, match="inpainting"):
        single_file(path)


def test_refiner(tmp_path: Path) -> None:
    """The SDXL refiner has only one text encoder and makes no pictures from text alone."""
    path = checkpoint(tmp_path / "model.safetensors", text="conditioner.embedders.0.model.x")

    with pytest.raises(ModelError, match="no text encoder of Stable Diffusion"):
        single_file(path)


def test_lora(tmp_path: Path) -> None:
    """A file that is a part of a model, or an addition to one, is told from a model."""
    path = tmp_path / "lora.safetensors"
    save_file({"lora_unet_down_blocks_0": np.zeros((1,), np.float16)}, path)

    with pytest.raises(ModelError, match="no complete Stable Diffusion checkpoint"):
        single_file(path)


def test_damaged_single_file(tmp_path: Path) -> None:
    """A single file that is cut short is found by its header."""
    path = checkpoint(tmp_path / "model.safetensors")
    path.write_bytes(path.read_bytes()[:-1])

    with pytest.raises(ModelError, match="cut short or damaged"):
        single_file(path)


def test_configuration_beside_a_single_file(folder: Callable[[str], Path], tmp_path: Path) -> None:
    """A single file's configuration may lie in a folder of the file's name."""
    beside = shutil.copytree(folder("sd"), tmp_path / "night-sky")

    found = single_file_config(tmp_path / "night-sky.safetensors", tmp_path / "none", TINY)

    assert beside == found


def test_configuration_of_a_model_of_the_same_kind(
    folder: Callable[[str], Path], tmp_path: Path
) -> None:
    """A cached model of the same family and width lends its configuration."""
    for other in ("sdxl", "lcm", "tiny_vae"):
        shutil.copytree(folder(other), tmp_path / "cache" / f"a-{other}")
    fitting = shutil.copytree(folder("sd"), tmp_path / "cache" / "org" / "b-sd")

    assert fitting == single_file_config(tmp_path / "x", tmp_path / "cache", TINY)


def test_reference_configuration_first(
    folder: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model that a kind of checkpoint derives from goes before others of its kind."""
    monkeypatch.setitem(layout.REFERENCE_MODELS, ("sd", 32), "z/first")
    shutil.copytree(folder("sd"), tmp_path / "a")
    first = shutil.copytree(folder("sd"), tmp_path / "models--z--first" / "snapshots" / "abc")

    assert first == single_file_config(tmp_path / "x", tmp_path, TINY)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("model_index.json", "{"),
        ("unet/config.json", "["),
        ("unet/config.json", '{"cross_attention_dim": 32, "block_out_channels": null}'),
    ],
)
def test_damaged_configuration_of_another_model(
    folder: Callable[[str], Path], tmp_path: Path, file: str, content: str
) -> None:
    """A damaged model in the cache is passed over in the search for a configuration."""
    damaged = shutil.copytree(folder("sd"), tmp_path / "cache" / "a-damaged")
    (damaged / file).write_text(content)
    fitting = shutil.copytree(folder("sd"), tmp_path / "cache" / "b-sd")

    assert fitting == single_file_config(tmp_path / "x", tmp_path / "cache", TINY)


def test_damaged_configuration_beside_a_single_file(
    folder: Callable[[str], Path], tmp_path: Path
) -> None:
    """A configuration that was put beside the file is the one that was asked for."""
    beside = shutil.copytree(folder("sd"), tmp_path / "night-sky")
    (beside / "model_index.json").write_text("{")

    with pytest.raises(ModelError, match=r"night-sky/model_index\.json is damaged"):
        single_file_config(tmp_path / "night-sky.safetensors", tmp_path / "none", TINY)


@pytest.mark.parametrize(
    ("width", "cure"), [(768, "hf download stable-diffusion-v1-5/"), (32, "put the model's")]
)
def test_no_configuration(tmp_path: Path, width: int, cure: str) -> None:
    """Without a configuration the message gives the command that fetches it."""
    with pytest.raises(ModelError, match=f"its configuration is not here. Cure: {cure}"):
        single_file_config(tmp_path / "x.safetensors", tmp_path, replace(TINY, text_width=width))
