"""Model folders and files as people bring them, through the command line to the image.

Each either draws what diffusers draws from the same weights, or ends in one line with the cause,
the cure and an exit code.
"""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.support.models.odd_models import (
    UNET,
    Place,
    broken,
    by_diffusers,
    config,
    edit,
    halves,
    index,
    pickled,
    replaced,
    schedule,
    unlink,
)
from tests.support.models.single_file import write_single_file

pytestmark = [
    pytest.mark.long,
    pytest.mark.filterwarnings(
        "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
    ),
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # diffusers' own, of old files.
]
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
ZERO_SNR = {
    **BETAS,
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "timestep_spacing": "trailing",
}
MODEL = 65
SETTING = 2


@pytest.fixture
def place(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: Any) -> Place:
    """Return a folder for models."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return Place(tmp_path, capfd)


def same(ours: np.ndarray, theirs: np.ndarray) -> bool:
    """Tell whether at least 99.9 % of the values differ by at most one."""
    return bool((np.abs(ours.astype(int) - theirs.astype(int)) <= 1).mean() >= 0.999)


DPMPP = ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++", "solver_order": 2})


@pytest.mark.parametrize("named", ["EulerDiscreteScheduler", "PNDMScheduler", "DDIMScheduler"])
def test_an_older_scheduler_file(place: Place, named: str) -> None:
    """A file that does not name ``use_karras_sigmas`` lets both kinds of DPM++ draw."""
    model = schedule(place.build(), _class_name=named, **BETAS)
    edit(model / "model_index.json", scheduler=["diffusers", named])

    plain = place.drawn(model, "--sampler=dpmpp_2m")
    karras = place.drawn(model, "--sampler=dpmpp_2m_karras")

    name, changes = DPMPP
    assert same(plain, by_diffusers(model, name, **changes, use_karras_sigmas=False))
    assert same(karras, by_diffusers(model, name, **changes, use_karras_sigmas=True))
    assert not same(plain, karras)


@pytest.mark.parametrize(
    ("library", "named"),
    [
        ("diffusers", "LMSDiscreteScheduler"),
        ("diffusers", "DPMSolverSDEScheduler"),
        ("diffusers", "SchedulerOfTomorrow"),
        ("my_code", "MyScheduler"),
        (None, None),
    ],
)
def test_a_scheduler_class_that_cannot_be_imported(
    place: Place, library: str | None, named: str | None
) -> None:
    """Only its numbers count."""
    model = schedule(place.build(), _class_name=named or "X", **BETAS)
    theirs = by_diffusers(model, "EulerDiscreteScheduler")
    edit(model / "model_index.json", scheduler=[library, named])

    assert same(place.drawn(model, "--sampler=euler"), theirs)


def test_a_neighbour_of_the_same_widths(place: Place) -> None:
    """A single file is not drawn with the configuration of a model that it is not."""
    neighbour = place.build("v_prediction", "cache/neighbour")
    file = write_single_file(place.build(), place.folder / "alone.safetensors")

    code, line = place.draw(file)

    assert (code, "its configuration is not next to it" in line) == (MODEL, True)
    assert f"ln -s {neighbour} {place.folder / 'alone'}" in line


def test_a_folder_next_to_the_file(place: Place) -> None:
    """The configuration of the folder next to it draws what the folder draws."""
    model = place.build()
    file = write_single_file(model, place.folder / "one.safetensors")
    shutil.copytree(model, place.folder / "one")

    ours = place.drawn(file, "--sampler=euler")

    assert same(ours, by_diffusers(model, "EulerDiscreteScheduler"))


@pytest.mark.parametrize("kind", ["sd", "sdxl"])
def test_markers_of_velocity_and_zero_snr(place: Place, kind: str) -> None:
    """``v_pred`` and ``ztsnr`` are obeyed."""
    model = place.build(kind)
    marks = {"v_pred": torch.zeros(0), "ztsnr": torch.zeros(0)}
    file = write_single_file(model, place.folder / "one.safetensors", extra=marks)
    shutil.copytree(model, place.folder / "one")

    ours = place.drawn(file, "--sampler=euler", "--guidance-rescale=0")

    changes = {key: ZERO_SNR[key] for key in ZERO_SNR.keys() - BETAS.keys()}
    assert same(ours, by_diffusers(model, "EulerDiscreteScheduler", **changes))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("edm_vpred.sigma_max", "is an EDM model"),
        ("model.diffusion_model.out.2.weight_scale", "quantised in a way that is not read"),
        ("model.diffusion_model.extra.weight", "not understood"),
        ("some_pred", "not understood"),
    ],
)
def test_tensors_that_change_what_the_others_mean(place: Place, name: str, words: str) -> None:
    """They are not passed over."""
    model = place.build()
    extra = {name: torch.ones(1)}
    file = write_single_file(model, place.folder / "one.safetensors", extra=extra)
    shutil.copytree(model, place.folder / "one")

    code, line = place.draw(file)

    assert (code, words in line) == (MODEL, True), line


REFUSED: dict[str, tuple[Callable[[Place], Path], str]] = {
    "unet wider than text encoder": (
        broken(config("unet", cross_attention_dim=64)),
        r"UNet takes text embeddings 64 wide .* text_encoder gives 32",
    ),
    "tokenizer larger than encoder": (
        broken(config("text_encoder", vocab_size=100)),
        r"tokenizer has tokens up to 189, and the text_encoder knows 100",
    ),
    "xl unet under an sd index": (
        broken(index(_class_name="StableDiffusionPipeline"), kind="sdxl"),
        r"as in an XL model",
    ),
    "sd unet under an xl index": (
        broken(config("unet", addition_embed_type=None), kind="sdxl"),
        r"not one of an XL model",
    ),
    "class embeddings": (broken(config("unet", num_class_embeds=10)), r"class labels"),
    "flow sigmas": (
        broken(lambda model: schedule(model, **BETAS, use_flow_sigmas=True)),
        r"rectified flow",
    ),
    "flow prediction": (
        broken(lambda model: schedule(model, **BETAS, prediction_type="flow_prediction")),
        r"prediction_type must be one of",
    ),
    "edm folder": (
        broken(lambda model: schedule(model, _class_name="EDMEulerScheduler")),
        r"needs EDMEulerScheduler",
    ),
    "no schedule": (broken(lambda model: schedule(model, beta_schedule="sigmoid")), r"no sampler"),
    "missing config": (
        broken(unlink("text_encoder/config.json")),
        r"text_encoder/config\.json is missing\. Copy it again",
    ),
    "null tokenizer": (broken(index(tokenizer=[None, None])), r"no tokenizer"),
    "custom code": (broken(index(unet=["my_code", "MyUNet"])), r"code that comes with the model"),
    "custom pipeline": (
        broken(index(_class_name=["pipeline", "MyPipeline"])),
        r"code that comes with the model",
    ),
    "web page as weights": (
        broken(replaced(UNET, b"<!DOCTYPE html><html><body>Log in</body></html>")),
        r"is an HTML page\. .* download the file itself",
    ),
    "lfs pointer as weights": (
        broken(replaced(UNET, b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")),
        r"pointer of Git LFS.* download the file itself",
    ),
    "pickle as weights": (broken(replaced(UNET, b"\x80\x02}q\x00.")), r"is a pickle file"),
    "empty weights": (broken(replaced(UNET, b"")), r"is empty"),
    "only pickles": (broken(pickled), r"has only pickled weights"),
    "deep index": (broken(replaced("model_index.json", b"[" * 100_000)), r"nested too deep"),
    "deep config": (broken(replaced("unet/config.json", b"[" * 100_000)), r"nested too deep"),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_what_cannot_be_drawn(place: Place, fault: str) -> None:
    """One line with the cause and a cure, and exit code 65."""
    build, words = REFUSED[fault]

    code, line = place.draw(build(place))

    assert code == MODEL, line
    assert re.search(words, line), line


def test_a_damaged_stray_file(place: Place) -> None:
    """A damaged file that nothing reads is no fault of the model."""
    model = place.build()
    (model / "unet" / "diffusion_pytorch_model.non_ema.safetensors").write_bytes(b"damaged")

    assert place.draw(model) == (0, "")


@pytest.mark.parametrize(
    ("parts", "shards", "older"),
    [
        (("unet",), False, False),
        (("text_encoder",), False, False),
        (("unet", "vae", "text_encoder"), False, False),
        (("unet", "vae", "text_encoder"), True, False),
        (("unet", "vae"), True, True),
    ],
)
def test_half_precision_only(
    place: Place, parts: tuple[str, ...], *, shards: bool, older: bool
) -> None:
    """Parts in float16 load next to others, whole or in shards, on a CPU."""
    model = place.build()
    expected = place.drawn(model).astype(int)
    for part in parts:
        halves(model, part, shards=shards, older=older)

    assert np.abs(place.drawn(model).astype(int) - expected).mean() < 2


@pytest.mark.parametrize(
    ("content", "sampler", "steps", "words"),
    [
        ({**BETAS, "prediction_type": "sample"}, "pndm", 4, "sampler: pndm cannot draw"),
        ({**BETAS, "prediction_type": "sample"}, "euler_a", 4, "sampler: euler_a cannot draw"),
        ({**BETAS, "num_train_timesteps": 10}, "unipc", 20, "steps: must be 1-"),
    ],
)
def test_pairs_of_sampler_and_schedule(
    place: Place, content: dict[str, Any], sampler: str, steps: int, words: str
) -> None:
    """An impossible pair is refused with the pairs that work."""
    model = schedule(place.build(), **content)

    code, line = place.draw(model, f"--sampler={sampler}", f"--steps={steps}")

    assert (code, words in line) == (SETTING, True), line
    assert "work with" in line or "use ddim" in line


def test_a_schedule_that_does_not_exist_for_a_model(place: Place) -> None:
    """Steps were published for few models; what works with the others is in the answer."""
    model = schedule(place.build(), **ZERO_SNR)

    code, line = place.draw(model, "--sampler=euler", "--schedule=align_your_steps")

    assert code == SETTING
    assert "schedule: align_your_steps does not exist for this model; use automatic" in line


def test_weights_that_are_no_numbers(place: Place) -> None:
    """In float32 no other number format is recommended."""
    model = place.build()
    tensors = load_file(model / UNET)
    tensors["conv_out.bias"][:] = float("nan")
    save_file(tensors, model / UNET, {"format": "pt"})

    code, line = place.draw(model)

    assert (code, "DTYPE" in line) == (MODEL, False), line
    assert "conv_out.bias of the unet" in line


def test_a_safety_checker_without_eyes(place: Place) -> None:
    """A feature extractor that is missing is named, with the setting that does without."""
    model = place.build("lenient")
    shutil.rmtree(model / "feature_extractor")

    code, line = place.draw(model, **{"safety-checker": "true"})

    assert (code, "feature_extractor is missing" in line) == (MODEL, True), line
    assert "SAFETY_CHECKER=false" in line


def test_a_safetensors_file_of_another_name(place: Place) -> None:
    """What is no pickle is told from one, with the command that gives it its name."""
    file = write_single_file(place.build(), place.folder / "my model.safetensors")
    file.rename(file.with_suffix(".ckpt"))

    code, line = place.draw(file.with_suffix(".ckpt"))

    assert code == MODEL
    assert f"'{file}'" in line
    assert "mv -n" in line
