import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.errors import ModelError, ModelUnsuitable
from service.models import layout
from service.models.layout import read_folder


@pytest.fixture
def copy(folder: Callable[[str], Path], tmp_path: Path) -> Path:
    """Return a copy of the tiny SD model that a test may damage."""
    return shutil.copytree(folder("sd"), tmp_path / "copy")


@pytest.fixture
def xl(folder: Callable[[str], Path], tmp_path: Path) -> Path:
    """Return a copy of the tiny XL model that a test may damage."""
    return shutil.copytree(folder("sdxl"), tmp_path / "xl")


def edit(path: Path, **changes: Any) -> None:
    """Change keys of a JSON file; None removes one."""
    content = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in content.items() if value != "none"}))


@pytest.mark.parametrize(
    ("kind", "family"), [("sd", "sd"), ("sdxl", "sdxl"), ("lcm", "sd"), ("tiny_vae", "sd")]
)
def test_families(folder: Callable[[str], Path], kind: str, family: str) -> None:
    """A folder's own index tells which family it belongs to."""
    assert family == read_folder(folder(kind)).family


def test_consistency_model(copy: Path) -> None:
    """A latent consistency model has the parts of SD and is loaded as one."""
    edit(copy / "model_index.json", _class_name="LatentConsistencyModelPipeline")

    assert read_folder(copy).family == "sd"


@pytest.mark.parametrize("kind", ["StableDiffusion3Pipeline", "FluxPipeline"])
def test_other_kinds(copy: Path, kind: str) -> None:
    """Another kind of model is named, with what is supported."""
    edit(copy / "model_index.json", _class_name=kind)

    with pytest.raises(ModelUnsuitable, match=rf"is a {kind}\. Supported are .*1\.x, 2\.x and XL"):
        read_folder(copy)


@pytest.mark.parametrize(
    ("part", "named", "words"),
    [
        ("unet", ["my_code", "MyUNet"], "MyUNet of my_code, code that comes with the model"),
        ("tokenizer", ["my_code", "MyTokenizer"], "code that comes with the model"),
        ("vae", ["diffusers", "ConsistencyDecoderVAE"], "its vae is ConsistencyDecoderVAE, not"),
        ("vae", ["diffusers", "AutoencoderKLCogVideoX"], "its vae is AutoencoderKLCogVideoX, not"),
        (
            "text_encoder",
            ["transformers", "CLIPTextModelWithProjection"],
            "its text_encoder is CLIPTextModelWithProjection, not CLIPTextModel",
        ),
        ("text_encoder", [None, None], "names no text_encoder"),
        ("text_encoder", None, "names no text_encoder"),
        ("tokenizer", [None, None], "names no tokenizer. It must be one of CLIPTokenizer"),
        ("tokenizer", None, "names no tokenizer. It must be one of CLIPTokenizer"),
        ("tokenizer", ["transformers", "AutoTokenizer"], "names AutoTokenizer as its tokenizer"),
        ("tokenizer", ["transformers", "BertTokenizer"], "names BertTokenizer as its tokenizer"),
        ("tokenizer", ["transformers", "pipeline"], "names pipeline as its tokenizer"),
    ],
)
def test_other_parts(copy: Path, part: str, named: object, words: str) -> None:
    """A part of an unknown class is refused; in particular no code of the model is run."""
    edit(copy / "model_index.json", **{part: named})

    with pytest.raises(ModelUnsuitable, match=words):
        read_folder(copy)


def test_a_pipeline_of_the_models_own(copy: Path) -> None:
    """Code for the whole pipeline is refused like code for a part."""
    edit(copy / "model_index.json", _class_name=["pipeline", "MyPipeline"])

    with pytest.raises(ModelUnsuitable, match=r"pipeline.MyPipeline.*code that comes with the"):
        read_folder(copy)


def test_code_that_nothing_names(copy: Path) -> None:
    """A script that lies in the folder changes nothing: it is not imported."""
    (copy / "unet" / "my_code.py").write_text("raise SystemExit")

    assert read_folder(copy).family == "sd"


@pytest.mark.parametrize(
    ("part", "changes", "words"),
    [
        ("unet", {"in_channels": 8}, "takes 8 channels and the VAE gives 4"),
        ("unet", {"in_channels": 9, "out_channels": 9}, "takes 9 channels and gives 9"),
        ("unet", {"out_channels": 8}, "takes 4 channels and gives 8"),
        ("vae", {"latent_channels": 16}, "takes 4 channels and the VAE gives 16"),
        ("vae", {"out_channels": 4}, "the VAE gives 4 colours"),
        (
            "unet",
            {"cross_attention_dim": 64},
            r"64 wide \(cross_attention_dim\), and the text_encoder gives 32",
        ),
        ("unet", {"cross_attention_dim": [32, 64]}, "32 or 64 wide"),
        ("text_encoder", {"hidden_size": 768}, "32 wide .* gives 768"),
        ("text_encoder", {"vocab_size": 100}, "tokens up to 189, and the text_encoder knows 100"),
        ("unet", {"class_embed_type": "timestep"}, "class labels"),
        ("unet", {"num_class_embeds": 1000}, "class labels"),
        ("unet", {"encoder_hid_dim_type": "image_proj"}, "projected embeddings"),
        ("unet", {"encoder_hid_dim": 64}, r"64 wide \(encoder_hid_dim\)"),
        ("unet", {"_class_name": "UNet2DModel"}, "is a UNet2DModel by its config.json"),
        ("vae", {"_class_name": "AutoencoderTiny"}, "is a AutoencoderTiny by its config.json"),
        ("vae", {"scaling_factor": None}, "scaling_factor of the VAE must be a number above 0"),
        ("vae", {"scaling_factor": "0.18"}, "scaling_factor of the VAE must be a number above 0"),
        ("unet", {"quantization_config": {"quant_method": "x"}}, r"the unet is quantised \(x\)"),
        ("unet", {"addition_embed_type": "text_time"}, "as in an XL model"),
        ("unet", {"addition_embed_type": "image"}, "wants more than a text encoder gives"),
    ],
)
def test_parts_that_cannot_work_together(
    copy: Path, part: str, changes: dict[str, Any], words: str
) -> None:
    """What the configurations say of each other is compared before anything is loaded."""
    edit(copy / part / "config.json", **changes)

    with pytest.raises(ModelUnsuitable, match=words):
        read_folder(copy)


@pytest.mark.parametrize(
    ("part", "changes", "words"),
    [
        ("unet", {"addition_embed_type": None}, "not one of an XL model"),
        (
            "unet",
            {"cross_attention_dim": 32},
            r"32 \(text_encoder\) \+ 32 \(text_encoder_2\)",
        ),
        ("text_encoder_2", {"projection_dim": 64}, r"takes 80 added numbers .* give 48 \+ 64"),
        ("unet", {"addition_time_embed_dim": 256}, r"takes 80 added numbers"),
        ("text_encoder_2", {"vocab_size": 50}, "the text_encoder_2 knows 50"),
    ],
)
def test_parts_of_an_xl_model_that_cannot_work_together(
    xl: Path, part: str, changes: dict[str, Any], words: str
) -> None:
    """An XL model's second text encoder and its sizes are compared, too."""
    edit(xl / part / "config.json", **changes)

    with pytest.raises(ModelUnsuitable, match=words):
        read_folder(xl)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"_class_name": "EDMDPMSolverMultistepScheduler"}, "needs EDMDPMSolverMultistepScheduler"),
        ({"_class_name": "CMStochasticIterativeScheduler"}, "no sampler here follows"),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler"}, "rectified flow"),
        ({"_class_name": "SomeFlowScheduler"}, "rectified flow"),
        ({"use_flow_sigmas": True}, "rectified flow"),
        ({"base_shift": 0.5}, "rectified flow"),
        ({"num_train_timesteps": "1000"}, "num_train_timesteps must be a whole number above 0"),
        ({"num_train_timesteps": 1000.0}, "num_train_timesteps must be a whole number above 0"),
        ({"num_train_timesteps": 0}, "num_train_timesteps must be a whole number above 0"),
        ({"beta_start": "0.1"}, "beta_start must be a number between 0 and 1"),
        ({"beta_end": 0}, "beta_end must be a number between 0 and 1"),
        ({"timestep_spacing": None}, "timestep_spacing must be one of linspace, leading, trailing"),
        ({"timestep_spacing": "zigzag"}, "timestep_spacing must be one of"),
        ({"prediction_type": "flow_prediction"}, "is 'flow_prediction' .rectified flow"),
        ({"prediction_type": "score"}, "must be one of epsilon, v_prediction, sample"),
        ({"prediction_type": 3}, "must be one of epsilon, v_prediction, sample"),
    ],
)
def test_foreign_noise(copy: Path, changes: dict[str, Any], words: str) -> None:
    """A model trained on noise that the samplers do not take away is refused."""
    edit(copy / "scheduler" / "scheduler_config.json", **changes)

    with pytest.raises(ModelUnsuitable, match=words):
        read_folder(copy)


@pytest.mark.parametrize(
    "kind", ["FlowMatchEulerDiscreteScheduler", "EDMEulerScheduler", "KarrasVeScheduler"]
)
def test_foreign_noise_in_the_index(copy: Path, kind: str) -> None:
    """Diffusers takes the class of the scheduler from the index."""
    edit(copy / "model_index.json", scheduler=["diffusers", kind])

    with pytest.raises(ModelUnsuitable, match=kind):
        read_folder(copy)


@pytest.mark.parametrize(
    "name", ["TokenizersBackend", "PreTrainedTokenizerFast", "CLIPTokenizerFast"]
)
def test_tokenizers_of_transformers(copy: Path, name: str) -> None:
    """Every class that transformers writes for a tokenizer is known."""
    edit(copy / "model_index.json", tokenizer=["transformers", name])

    assert read_folder(copy).family == "sd"


@pytest.mark.parametrize("kind", ["LMSDiscreteScheduler", "DPMSolverSDEScheduler", "FutureOne"])
def test_only_the_numbers_of_a_scheduler_are_read(copy: Path, kind: str) -> None:
    """Its class may need a package that is not here, or not exist yet."""
    path = copy / "scheduler" / "scheduler_config.json"
    edit(path, _class_name=kind, beta_start=0.001)
    edit(copy / "model_index.json", scheduler=["diffusers", kind])

    assert read_folder(copy).schedule.numbers["beta_start"] == 0.001


@pytest.mark.parametrize(
    ("named", "setting", "prediction", "said_by"),
    [
        ("v_prediction", "auto", "v_prediction", "scheduler_config.json"),
        ("v_prediction", "epsilon", "v_prediction", "scheduler_config.json"),
        ("none", "auto", "epsilon", "default"),
        ("none", "v_prediction", "v_prediction", "PREDICTION_TYPE"),
        (None, "v_prediction", "v_prediction", "PREDICTION_TYPE"),
    ],
)
def test_what_a_folder_predicts(
    copy: Path, named: str | None, setting: str, prediction: str, said_by: str
) -> None:
    """Its own files decide, then the setting, then what diffusers does by itself."""
    edit(copy / "scheduler" / "scheduler_config.json", prediction_type=named)

    found = read_folder(copy, prediction_type=setting).schedule

    assert (prediction, said_by) == (found.prediction_type, found.prediction_from)


def test_no_scheduler(copy: Path) -> None:
    """A folder without a noise schedule is not drawn with a guessed one."""
    (copy / "scheduler" / "scheduler_config.json").unlink()

    with pytest.raises(ModelError, match=r"scheduler_config\.json is missing"):
        read_folder(copy)


def test_no_weights(copy: Path) -> None:
    """A part without weights is named."""
    (copy / "vae" / "diffusion_pytorch_model.safetensors").unlink()

    with pytest.raises(ModelError, match="vae has no weights"):
        read_folder(copy)


def test_pickled_weights(copy: Path) -> None:
    """Pickled weights are not read, and the message says why."""
    weights = copy / "vae" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))

    with pytest.raises(ModelUnsuitable, match=r"only pickled weights .* can run code"):
        read_folder(copy)


def test_weights_under_another_name(copy: Path) -> None:
    """Weights that no library would look for are not passed over."""
    weights = copy / "vae" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_name("my-vae.safetensors"))

    with pytest.raises(ModelUnsuitable, match=r"a name that is not read \(my-vae.safetensors\)"):
        read_folder(copy)


@pytest.mark.parametrize(
    "name",
    ["diffusion_pytorch_model.non_ema.safetensors", "diffusion_pytorch_model.fp16.safetensors"],
)
def test_a_damaged_file_that_nothing_loads(copy: Path, name: str) -> None:
    """A stray file that is cut short does not matter."""
    (copy / "unet" / name).write_bytes(b"\x10\0\0\0\0\0\0\0{")

    assert read_folder(copy).family == "sd"


def test_shards_without_their_index(copy: Path) -> None:
    """Shards that are not all there are named."""
    weights = copy / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_name("diffusion_pytorch_model-00001-of-00002.safetensors"))

    with pytest.raises(ModelError, match="lacks some of its shards or their index"):
        read_folder(copy)


@pytest.mark.parametrize(
    ("removed", "words"),
    [
        (("vocab.json", "tokenizer.json"), "lacks vocab.json"),
        (("merges.txt", "tokenizer.json"), "lacks merges.txt"),
    ],
)
def test_tokenizer_that_lacks_a_file(copy: Path, removed: tuple[str, ...], words: str) -> None:
    """A tokenizer without one of its files is not taken for one that knows no word."""
    from tests.support.models import tiny_models  # noqa: PLC0415

    shutil.rmtree(copy / "tokenizer")
    tiny_models.tokenizer(copy / "tokenizer")
    for name in removed:
        (copy / "tokenizer" / name).unlink(missing_ok=True)

    with pytest.raises(ModelError, match=words):
        read_folder(copy)


def test_no_tokenizer(copy: Path) -> None:
    """A folder that lacks the tokenizer that its index names says so."""
    shutil.rmtree(copy / "tokenizer")

    with pytest.raises(ModelError, match="tokenizer is missing"):
        read_folder(copy)


@pytest.mark.parametrize("kept", [0, 4, 100, 2000, -1])
def test_truncated_weights(copy: Path, kept: int) -> None:
    """A file that is cut short, even by its last byte, is found before it is loaded."""
    weights = copy / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:kept])

    with pytest.raises(ModelError, match=r"cut short|empty|damaged") as error:
        read_folder(copy)

    assert not isinstance(error.value, ModelUnsuitable)


@pytest.mark.parametrize("content", ["", "{", "[]", "[" * 100_000, "<html>"])
@pytest.mark.parametrize(
    "file", ["unet/config.json", "scheduler/scheduler_config.json", "model_index.json"]
)
def test_damaged_config(copy: Path, file: str, content: str) -> None:
    """A configuration that cannot be read is named."""
    (copy / file).write_text(content)

    with pytest.raises(ModelError, match=file):
        read_folder(copy)


@pytest.mark.parametrize("part", ["vae", "unet", "text_encoder"])
def test_missing_config(copy: Path, part: str) -> None:
    """A part without configuration is named, with a cure for where it lies."""
    (copy / part / "config.json").unlink()

    with pytest.raises(ModelError, match=rf"{part}/config\.json is missing\. Copy it again"):
        read_folder(copy)


def test_a_model_of_the_hub_is_fetched_again_by_a_command(
    folder: Callable[[str], Path], tmp_path: Path
) -> None:
    """Of a model in the hub's cache the cure is the command that fetches what is missing."""
    snapshot = tmp_path / "models--org--name" / "snapshots" / "abc"
    shutil.copytree(folder("sd"), snapshot)
    (snapshot / "text_encoder" / "config.json").unlink()

    with pytest.raises(ModelError, match=r"Fetch it again: .*sd-api.* models pull org/name"):
        layout.read_folder(snapshot)
