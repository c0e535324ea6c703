"""Random-weight models of the published shapes: their size, and that the service draws with one."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import CLIPTokenizer

from scripts.random_model import __main__ as random_model
from scripts.random_model import folder, networks
from scripts.random_model.shapes import SHAPES
from service.cli.exits import Exit
from service.config.table import Config
from service.core.events import JobFinished
from service.core.spec import GenerationSpec
from service.diffusion.load import Model, load_model
from service.diffusion.loop.step_loop import StepLoop
from service.errors import ConfigError, DiskFull, FolderUnusable
from service.models import catalog
from service.models.vocabulary import MARKS

TINY = [name for name in SHAPES if name.startswith("tiny-")]


def load(path: Path, **settings: Any) -> Model:
    """Load a folder as the service does."""
    return load_model(
        catalog.resolve(str(path), path.parent), Config(model_cache_dir=path.parent, **settings)
    )


@pytest.mark.parametrize(
    ("name", "part", "millions"),
    [
        ("sd15", "unet", 859.5),
        ("sd15", "vae", 83.7),
        ("sd15", "text_encoder", 123.1),
        ("sd21-v", "unet", 865.9),
        ("sd21-v", "vae", 83.7),
        ("sd21-v", "text_encoder", 340.4),
        ("sdxl", "unet", 2567.5),
        ("sdxl", "vae", 83.7),
        ("sdxl", "text_encoder", 123.1),
        ("sdxl", "text_encoder_2", 694.7),
    ],
)
def test_the_shapes_are_the_published_ones(name, part, millions):
    """Every network has as many weights as the one whose shape it is."""
    assert round(networks.parameters(part, SHAPES[name].parts[part]) / 1e6, 1) == millions


@pytest.mark.parametrize("name", TINY)
def test_the_service_loads_one_and_draws(name, tmp_path):
    """A tiny one of the same layers is written in float16, loaded, and makes an image."""
    path = folder.build(SHAPES[name], tmp_path / "random")
    model = load(path, device="cpu")
    assert model.info.inpainting == name.endswith("-inpaint")
    name = name.removesuffix("-inpaint")
    velocity = name == "tiny-sd21-v"
    assert model.info.family == ("sdxl" if name == "tiny-sdxl" else "sd")
    assert model.info.prediction_type == ("v_prediction" if velocity else "epsilon")
    assert (model.info.version, model.info.prompt_tokens) == ("random", 77)
    assert model.info.sizes.usual == {"tiny-sd15": 512, "tiny-sd21-v": 768, "tiny-sdxl": 1024}[name]
    loop = StepLoop(model, batch_limit=1)
    loop.add("one", GenerationSpec(prompt="a cat", width=64, height=64, steps=2))
    outcomes = [outcome for _ in range(9) if loop.busy for outcome in loop.step()]
    (finished,) = [outcome for outcome in outcomes if isinstance(outcome, JobFinished)]
    assert len(set(finished.images[0].pixels)) > 100


def test_no_activation_overflows_in_half_precision(tmp_path):
    """Nothing that any layer computes comes near to 65,504, with prompt and without."""
    model = load(folder.build(SHAPES["tiny-sd15"], tmp_path / "random"), device="cpu")
    seen: list[float] = []

    def watch(_module: Any, _given: Any, made: Any) -> None:
        if isinstance(made, torch.Tensor):
            seen.append(float(made.abs().max()))

    for part in (
        model.family.pipeline.unet,
        model.family.pipeline.vae,
        model.family.pipeline.text_encoder,
    ):
        for module in part.modules():
            module.register_forward_hook(watch)
    loop = StepLoop(model, batch_limit=1)
    loop.add("one", GenerationSpec(prompt="a cat", width=64, height=64, steps=6))
    while loop.busy:
        loop.step()
    assert len(seen) > 1000
    assert max(seen) < 10_000


def test_the_files_are_of_the_format_that_was_asked_for(tmp_path):
    """The same seed makes the same weights; half precision is the rounded single one."""
    shape = SHAPES["tiny-sd15"]
    half, single, other = (
        load_file(folder.build(shape, tmp_path / name, dtype=dtype, seed=seed) / "vae" / FILE)
        for name, dtype, seed in (
            ("half", torch.float16, 0),
            ("single", torch.float32, 0),
            ("other", torch.float16, 1),
        )
    )
    name = "decoder.conv_in.weight"
    assert half[name].dtype == torch.float16
    assert torch.equal(half[name], single[name].half())
    assert not torch.equal(half[name], other[name])


FILE = "diffusion_pytorch_model.safetensors"


def test_the_tokenizer_has_the_size_and_the_marks_of_clips_own(tmp_path):
    """49,408 entries, the marks last; every text is read, and unknown signs do no harm."""
    folder.vocabulary().write(tmp_path / "tokenizer", MARKS[1])
    words = CLIPTokenizer.from_pretrained(tmp_path / "tokenizer")
    assert len(words) == 49408
    ids = words("A cozy cabin, 森 42!", padding="max_length", truncation=True).input_ids
    assert (ids[0], len(ids)) == (49406, 77)
    first = ids.index(49407)
    assert set(ids[first:]) == {49407}
    assert str(words.decode(ids[1:first])).replace(" ", "") == "acozycabin,森42!"
    assert words("zz").input_ids[1] < 49406


def test_a_full_disk_is_told_before_anything_is_written(tmp_path, monkeypatch):
    """The folder, what it needs and what is free; nothing is left."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10**9))
    with pytest.raises(DiskFull, match=r"random needs 2\.1 GB, and 1\.0 GB are free on the disk"):
        folder.build(SHAPES["sd15"], tmp_path / "random")
    assert list(tmp_path.iterdir()) == []


def test_a_build_that_fails_leaves_nothing(tmp_path, monkeypatch):
    """Neither a half model nor a folder with another name, and the error names the folder."""

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(networks, "save_file", lambda *_, **__: fail())
    with pytest.raises(FolderUnusable, match=r"random cannot be written .*No space left"):
        folder.build(SHAPES["tiny-sd15"], tmp_path / "random")
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_not_replaced(tmp_path, capsys):
    """A folder that exists is kept, and the command says so in one line."""
    (tmp_path / "kept").touch()
    with pytest.raises(ConfigError, match="exists already"):
        folder.build(SHAPES["tiny-sd15"], tmp_path)
    assert random_model.main(["--out", str(tmp_path)]) == Exit.SETTING
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.endswith("exists already. Name another folder, or remove it first.")
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_files_have_the_names_that_the_libraries_give_them(tmp_path):
    """Of weights, and of each weight in them."""
    built = folder.build(SHAPES["tiny-sdxl"], tmp_path / "random")
    found = load_file(built / "text_encoder_2" / "model.safetensors")
    assert "text_model.embeddings.token_embedding.weight" in found
    assert "text_projection.weight" in found
    assert (built / "unet" / FILE).is_file()
