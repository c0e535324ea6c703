"""Checkpoints in a single file, drawn and compared with diffusers' own pipelines."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
)
from safetensors.torch import load_file, save_file

from service.config.table import Config
from service.core.events import JobFailed, JobFinished
from service.core.spec import GenerationSpec
from service.diffusion.load import Model, load_model
from service.diffusion.loop.step_loop import StepLoop
from service.errors import ModelUnsuitable
from service.models import figures, layout
from service.models.catalog import resolve
from tests.support.models.single_file import write_single_file

REQUEST = GenerationSpec(prompt="a cat", width=32, height=32, steps=4, seed=5)
UNET = "model.diffusion_model."
MARK = torch.zeros(0)


def loaded(path: Path, **settings: Any) -> Model:
    """Load a file as the service does, with nothing else in its cache."""
    return load_model(
        resolve(str(path), path.parent), Config(model_cache_dir=path.parent / "cache", **settings)
    )


def drawn(model: Model) -> np.ndarray:
    """Make one image ``[height, width, 3]``."""
    loop = StepLoop(model, batch_limit=1)
    loop.add("a", REQUEST)
    while loop.busy:
        for outcome in loop.step():
            assert not isinstance(outcome, JobFailed), outcome
            if isinstance(outcome, JobFinished):
                return np.frombuffer(outcome.images[0].pixels, np.uint8).reshape(32, 32, 3)
    raise AssertionError("No image was made.")


def by_diffusers(folder: Path, **schedule: Any) -> np.ndarray:
    """Make the image with diffusers alone, from the folder that the file was written from."""
    kind: Any = {
        "StableDiffusionPipeline": StableDiffusionPipeline,
        "StableDiffusionXLPipeline": StableDiffusionXLPipeline,
    }[json.loads((folder / "model_index.json").read_text())["_class_name"]]
    pipeline = kind.from_pretrained(folder, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    config = json.loads((folder / "scheduler" / "scheduler_config.json").read_text()) | schedule
    pipeline.scheduler = DPMSolverMultistepScheduler.from_config(
        config, algorithm_type="dpmsolver++", solver_order=2, use_karras_sigmas=False
    )
    return np.asarray(
        pipeline(
            REQUEST.prompt,
            width=32,
            height=32,
            num_inference_steps=REQUEST.steps,
            guidance_scale=REQUEST.guidance_scale,
            generator=torch.Generator("cpu").manual_seed(REQUEST.seed),
        ).images[0]
    )


def same(ours: np.ndarray, theirs: np.ndarray) -> bool:
    """Tell whether at least 99.9 % of the values differ by at most one."""
    return bool((np.abs(ours.astype(int) - theirs.astype(int)) <= 1).mean() >= 0.999)


def written(folder: Path, place: Path, **settings: Any) -> Path:
    """Write a file with its folder next to it."""
    shutil.copytree(folder, place / "night-sky")
    return write_single_file(folder, place / "night-sky.safetensors", **settings)


@pytest.mark.parametrize(
    ("kind", "open_clip"),
    [("sd", False), ("sd", True), ("v_prediction", True), ("sdxl", False), ("lcm", False)],
)
def test_a_file_draws_what_its_folder_draws(
    folder: Callable[[str], Path], tmp_path: Path, kind: str, *, open_clip: bool
) -> None:
    """Names of CompVis and of OpenCLIP are understood, in every family."""
    model = loaded(written(folder(kind), tmp_path, open_clip=open_clip))

    assert model.info.version == "night-sky"
    assert same(drawn(model), by_diffusers(folder(kind)))


@pytest.mark.parametrize(
    ("markers", "schedule"),
    [
        (("v_pred",), {"prediction_type": "v_prediction"}),
        (
            ("v_pred", "ztsnr"),
            {
                "prediction_type": "v_prediction",
                "rescale_betas_zero_snr": True,
                "timestep_spacing": "trailing",
            },
        ),
    ],
)
@pytest.mark.parametrize("kind", ["sd", "sdxl"])
def test_markers_are_obeyed(
    folder: Callable[[str], Path],
    tmp_path: Path,
    kind: str,
    markers: tuple[str, ...],
    schedule: Mapping[str, Any],
) -> None:
    """A file that says it predicts velocity is drawn so, whatever the folder next to it says."""
    path = written(folder(kind), tmp_path, extra=dict.fromkeys(markers, MARK))

    ours = drawn(loaded(path))

    assert same(ours, by_diffusers(folder(kind), **schedule))
    assert not same(ours, by_diffusers(folder(kind)))


def test_the_setting_is_obeyed(folder: Callable[[str], Path], tmp_path: Path) -> None:
    """Where no file says what the UNet predicts, PREDICTION_TYPE does."""
    path = written(folder("sd"), tmp_path)
    config = tmp_path / "night-sky" / "scheduler" / "scheduler_config.json"
    content = json.loads(config.read_text())
    del content["prediction_type"]
    config.write_text(json.dumps(content))

    ours = drawn(loaded(path, prediction_type="v_prediction"))

    assert same(ours, by_diffusers(tmp_path / "night-sky", prediction_type="v_prediction"))


def test_another_models_configuration_draws_something_else(
    folder: Callable[[str], Path], tmp_path: Path
) -> None:
    """A neighbour of the same widths with other figures is not asked."""
    neighbour = shutil.copytree(folder("v_prediction"), tmp_path / "cache" / "neighbour")
    path = write_single_file(folder("sd"), tmp_path / "night-sky.safetensors")

    with pytest.raises(ModelUnsuitable, match="its configuration is not next to it"):
        loaded(path)

    shutil.copytree(neighbour, tmp_path / "night-sky")
    assert not same(drawn(loaded(path)), by_diffusers(folder("sd")))


def test_the_services_own_configuration(
    folder: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Figures of the service and CLIP's vocabulary make a whole model of a file alone."""
    source = shutil.copytree(folder("sd"), tmp_path / "wide")
    config = source / "text_encoder" / "config.json"
    content = json.loads(config.read_text()) | {"vocab_size": 49408, "eos_token_id": 2}
    config.write_text(json.dumps(content))
    weights = source / "text_encoder" / "model.safetensors"
    tensors = load_file(weights)
    (table,) = (key for key in tensors if key.endswith("token_embedding.weight"))
    torch.manual_seed(3)
    tensors[table] = torch.randn(49408, 32)
    save_file(tensors, weights, metadata={"format": "pt"})
    parts = {
        part: json.loads((source / part / "config.json").read_text())
        for part in ("unet", "vae", "text_encoder")
    }
    tiny = figures.Figures(
        name="Tiny",
        family="sd",
        parts=parts,
        schedule=figures.SCHEDULE,
        padding={"tokenizer": figures.END},
        settings={},
        reference="org/none",
    )
    monkeypatch.setattr(layout, "FIGURES", {("sd", 32): tiny})
    model = loaded(write_single_file(source, tmp_path / "alone.safetensors"))
    shutil.rmtree(source / "tokenizer")
    model.family.pipeline.tokenizer.save_pretrained(source / "tokenizer")
    schedule = source / "scheduler" / "scheduler_config.json"
    schedule.write_text(json.dumps({"_class_name": "PNDMScheduler", **figures.SCHEDULE}))

    assert (
        model.info.configuration
        == "Tiny, brought by the service; tokenizer: package open_clip_torch"
    )
    assert same(drawn(model), by_diffusers(source))


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e5m2"])
def test_scales_of_float8_are_applied(
    folder: Callable[[str], Path], tmp_path: Path, dtype: str
) -> None:
    """Weights in float8 are multiplied by the scale that stands next to each."""
    path = written(folder("sd"), tmp_path)
    expected = drawn(loaded(path))
    kind: torch.dtype = getattr(torch, dtype)
    tensors: dict[str, torch.Tensor] = {"scaled_fp8": torch.zeros(2).to(kind)}
    for key, value in load_file(path).items():
        if not key.startswith(UNET) or not key.endswith(".weight") or value.ndim < 2:
            tensors[key] = value
            continue
        scale = value.abs().max() / torch.finfo(kind).max
        tensors[key] = (value / scale).to(kind)
        tensors[key.removesuffix("weight") + "scale_weight"] = scale.reshape(1)
        tensors[key.removesuffix("weight") + "scale_input"] = torch.ones(1)
    save_file(tensors, path)

    found = drawn(loaded(path))

    assert np.abs(found.astype(int) - expected).mean() < (2 if dtype == "float8_e4m3fn" else 4)


def test_a_scale_without_weights(folder: Callable[[str], Path], tmp_path: Path) -> None:
    """A scale that belongs to nothing is not passed over."""
    extra = {f"{UNET}out.9.scale_weight": torch.ones(1)}

    with pytest.raises(ModelUnsuitable, match=r"the scale .*out\.9\.scale_weight and not"):
        loaded(written(folder("sd"), tmp_path, extra=extra))


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        (f"{UNET}foo.weight", (3, 3)),
        (f"{UNET}input_blocks.3.1.in_layers.0.weight", (32,)),
        ("first_stage_model.quantize.weight", (3, 3)),
        ("cond_stage_model.transformer.text_model.encoder.layers.0.adapter.weight", (3, 3)),
        ("cond_stage_model.other.weight", (3, 3)),
        ("conditioner.embedders.2.weight", (3, 3)),
    ],
)
def test_tensors_that_no_part_reads(
    folder: Callable[[str], Path], tmp_path: Path, name: str, shape: tuple[int, ...]
) -> None:
    """A tensor inside a part that would be left out is named, and the file refused."""
    path = written(folder("sd"), tmp_path, extra={name: torch.ones(shape)})

    with pytest.raises(ModelUnsuitable, match=r"not understood|no place"):
        loaded(path)


def test_tensors_of_open_clip_that_no_part_reads(
    folder: Callable[[str], Path], tmp_path: Path
) -> None:
    """The same holds for the text encoders that the conversion goes through by name."""
    extra = {"cond_stage_model.model.visual.proj": torch.ones(3, 3)}

    with pytest.raises(ModelUnsuitable, match=r"not understood .*visual\.proj"):
        loaded(written(folder("sd"), tmp_path, open_clip=True, extra=extra))


@pytest.mark.parametrize(
    "name",
    [
        f"{UNET}out.2.weight",
        "first_stage_model.decoder.conv_out.bias",
        "cond_stage_model.transformer.text_model.final_layer_norm.weight",
    ],
)
def test_a_file_that_lacks_weights(
    folder: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    """A single file without one of its tensors is not filled up with random numbers."""
    path = written(folder("sd"), tmp_path)
    tensors = load_file(path)
    del tensors[name]
    save_file(tensors, path)

    with pytest.raises(ModelUnsuitable, match="lacks 1 weights of the"):
        loaded(path)


def test_weights_of_another_shape(folder: Callable[[str], Path], tmp_path: Path) -> None:
    """A configuration that fits in all but one tensor is told with that tensor."""
    path = written(folder("sd"), tmp_path)
    tensors = load_file(path)
    tensors[f"{UNET}out.2.weight"] = torch.ones(4, 32, 1, 1)
    save_file(tensors, path)

    with pytest.raises(ModelUnsuitable, match=r"conv_out\.weight of the unet is \(4, 32, 1, 1\)"):
        loaded(path)


def test_names_without_text_model(folder: Callable[[str], Path], tmp_path: Path) -> None:
    """Some merged files leave a part of the text encoder's names out."""
    path = written(folder("sd"), tmp_path)
    tensors = {key.replace("text_model.", ""): value for key, value in load_file(path).items()}
    save_file(tensors, path)

    assert same(drawn(loaded(path)), by_diffusers(folder("sd")))


def test_half_precision_files(folder: Callable[[str], Path], tmp_path: Path) -> None:
    """A file in float16 is computed in what the settings say."""
    path = written(folder("sd"), tmp_path)
    save_file({key: value.half() for key, value in load_file(path).items()}, path)

    model = loaded(path)

    assert {weight.dtype for weight in model.family.pipeline.unet.parameters()} == {torch.float32}
    assert np.abs(drawn(model).astype(int) - by_diffusers(folder("sd"))).mean() < 2


def test_no_safety_checker(folder: Callable[[str], Path], tmp_path: Path) -> None:
    """A single file has none, which is said where one is asked for."""
    with pytest.raises(ModelUnsuitable, match=r"SAFETY_CHECKER=true, but .* has none"):
        loaded(written(folder("sd"), tmp_path), safety_checker=True)
