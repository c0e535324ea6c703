"""Twelve checkpoints as people have them, each with its one expected outcome.

All but one are drawn as a request that names nothing but its prompt, size and seed asks for, and
give what diffusers gives with the numbers that the publisher of such a model names.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    LCMScheduler,
    TCDScheduler,
)
from safetensors.torch import load_file, save_file

from service.config.limits import limits_of
from service.config.table import Config
from service.core.events import StepBaseline
from service.core.spec import Adapter, GenerationSpec
from service.diffusion.load import Model, load_model
from service.diffusion.loop.step_loop import StepLoop
from service.diffusion.loop.trials.warm_up import warm_up
from service.errors import ModelUnsuitable
from service.http.schema.generation import read_request
from service.models.adapters.catalog import AdapterCatalog
from service.models.catalog import resolve
from tests.support.models import adapter_files, tiny_models
from tests.support.models.odd_models import halves
from tests.support.models.single_file import write_single_file
from tests.support.parity import adapted, comparison, gallery
from tests.support.parity.references import Reference

# diffusers corrects old scheduler files, which some of the models here have on purpose.
pytestmark = pytest.mark.filterwarnings(
    "ignore:The configuration file of this scheduler:FutureWarning"
)

SIDE = 64
SEED = 5
MARK = torch.zeros(0)
UNET = "model.diffusion_model."
FLOAT8 = torch.float8_e4m3fn
TRAILING = {"timestep_spacing": "trailing"}
ZERO_SNR = {**TRAILING, "prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
DPMPP_2M = (DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver++", "solver_order": 2})

Build = Callable[[Path], tuple[Path, Path]]
"""Writes a checkpoint; returns what MODEL_ID names, and the folder that diffusers reads."""


def folder_of(kind: str, name: str = "model") -> Build:
    """Return what writes a folder in diffusers layout."""

    def build(place: Path) -> tuple[Path, Path]:
        folder = getattr(tiny_models, f"build_{kind}")(place / name)
        return tiny_models.with_loud_unet(folder), folder

    return build


def file_of(kind: str, name: str = "model", **written: Any) -> Build:
    """Return what writes a single file, with its configuration in the folder next to it."""

    def build(place: Path) -> tuple[Path, Path]:
        folder, _ = folder_of(kind, name)(place)
        return write_single_file(folder, place / f"{name}.safetensors", **written), folder

    return build


def sharded(place: Path) -> tuple[Path, Path]:
    """Write a folder with nothing but shards in float16."""
    folder, _ = folder_of("sd")(place)
    for part in ("unet", "vae", "text_encoder"):
        halves(folder, part, shards=True)
    return folder, folder


def with_float8(convert: Callable[[str, torch.Tensor], dict[str, torch.Tensor]]) -> Build:
    """Return what writes a single file whose UNet is in float8."""

    def build(place: Path) -> tuple[Path, Path]:
        file, folder = file_of("sd")(place)
        tensors: dict[str, torch.Tensor] = {}
        for key, value in load_file(file).items():
            tensors |= convert(key, value) if key.startswith(UNET) else {key: value}
        save_file(tensors, file)
        return file, folder

    return build


def plain(key: str, weight: torch.Tensor) -> dict[str, torch.Tensor]:
    """Write a tensor in float8."""
    return {key: weight.to(FLOAT8)}


def scale_of(weight: torch.Tensor) -> torch.Tensor:
    """Return what brings the largest number of a weight to the largest of float8."""
    return weight.abs().max() / torch.finfo(FLOAT8).max


def scaled(key: str, weight: torch.Tensor) -> dict[str, torch.Tensor]:
    """Write a matrix or kernel in float8 with its scale."""
    if weight.ndim == 1:
        return {key: weight}
    scale = scale_of(weight)
    name = key.removesuffix("weight") + "scale_weight"
    return {key: (weight / scale).to(FLOAT8), name: scale.reshape(1)}


def in_float8(weight: torch.Tensor) -> torch.Tensor:
    """Return what float8 leaves of a weight."""
    return weight.to(FLOAT8).float()


def in_scaled_float8(weight: torch.Tensor) -> torch.Tensor:
    """Return what float8 leaves of a weight with a scale."""
    return weight if weight.ndim == 1 else in_float8(weight / scale_of(weight)) * scale_of(weight)


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A checkpoint, and how diffusers draws what it shall draw."""

    build: Build
    scheduler: tuple[Any, Mapping[str, Any]]
    """Class and changes."""
    asks: Mapping[str, Any] = field(default_factory=dict)
    """Of the request, next to prompt, size and seed."""
    recipe: str = ""
    steps: int = 4
    guidance: float = 0.0
    rescale: float = 0.0
    eta: float = 0.0
    settings: Mapping[str, Any] = field(default_factory=dict)
    variant: str | None = None
    weights: Callable[[torch.Tensor], torch.Tensor] = lambda weight: weight
    """What the file leaves of a weight of the UNet."""


USUAL: Mapping[str, Any] = {"asks": {"steps": 4}, "guidance": 7.5, "scheduler": DPMPP_2M}
CHECKPOINTS = {
    "SDXL with marks of velocity and zero SNR": Checkpoint(
        build=file_of("sdxl", extra={"v_pred": MARK, "ztsnr": MARK}),
        asks={"steps": 4, "sampler": "euler"},
        recipe="zero-snr",
        scheduler=(EulerDiscreteScheduler, ZERO_SNR),
        guidance=7.5,
        rescale=0.7,
    ),
    "SD 2.1-base with PREDICTION_TYPE": Checkpoint(
        build=file_of("sd21_base", open_clip=True),
        settings={"prediction_type": "epsilon"},
        **{**USUAL, "scheduler": (DPMPP_2M[0], {**DPMPP_2M[1], "prediction_type": "epsilon"})},
    ),
    "Turbo": Checkpoint(
        build=file_of("sdxl", "dreamXL_turbo"),
        recipe="turbo",
        scheduler=(EulerAncestralDiscreteScheduler, TRAILING),
    ),
    "Lightning": Checkpoint(
        build=file_of("sdxl", "dreamXL_lightning_8step"),
        recipe="lightning",
        steps=8,
        scheduler=(EulerDiscreteScheduler, TRAILING),
    ),
    "LCM": Checkpoint(
        build=folder_of("lcm"), recipe="lcm", guidance=8.0, scheduler=(LCMScheduler, {})
    ),
    "Hyper-SD": Checkpoint(
        build=file_of("sd", "Hyper-SD15-8steps"),
        recipe="hyper-sd",
        steps=8,
        scheduler=(DDIMScheduler, {**TRAILING, "clip_sample": False}),
    ),
    "TCD": Checkpoint(
        build=folder_of("tcd_schedule"), recipe="tcd", eta=0.3, scheduler=(TCDScheduler, {})
    ),
    "shards in float16": Checkpoint(build=sharded, variant="fp16", **USUAL),
    "float8": Checkpoint(build=with_float8(plain), weights=in_float8, **USUAL),
    "float8 with scales": Checkpoint(build=with_float8(scaled), weights=in_scaled_float8, **USUAL),
}


def loaded(path: Path, **settings: Any) -> tuple[Model, Config]:
    """Load a checkpoint as the service does, with nothing else in its cache."""
    config = Config(model_cache_dir=path.parent / "cache", min_size=SIDE, **settings)
    return load_model(resolve(str(path), config.model_cache_dir), config), config


def asked(model: Model, config: Config, **fields: Any) -> GenerationSpec:
    """Read a request that leaves the rest to the model."""
    body = {"prompt": "a cat", "width": SIDE, "height": SIDE, "seed": SEED, **fields}
    return read_request(body, limits_of(config, model.info.sizes, model.info.recipe))


def read_by_diffusers(checkpoint: Checkpoint, folder: Path) -> Any:
    """Return diffusers' pipeline, with the scheduler and the weights that are wanted."""
    pipeline = Reference(folder, variant=checkpoint.variant).pipeline
    kind, changes = checkpoint.scheduler
    pipeline.scheduler = kind.from_config(pipeline.scheduler.config, **changes)
    for weight in pipeline.unet.parameters():
        weight.data = checkpoint.weights(weight.data)
    return pipeline


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_checkpoint_is_drawn_as_its_publisher_says(tmp_path: Path, name: str) -> None:
    """Its image is that of diffusers with these numbers, by a request that says little."""
    checkpoint = CHECKPOINTS[name]
    path, folder = checkpoint.build(tmp_path)
    model, config = loaded(path, **checkpoint.settings)
    theirs = read_by_diffusers(checkpoint, folder)(
        "a cat",
        width=SIDE,
        height=SIDE,
        num_inference_steps=checkpoint.steps,
        guidance_scale=checkpoint.guidance,
        guidance_rescale=checkpoint.rescale,
        eta=checkpoint.eta,
        generator=torch.Generator("cpu").manual_seed(SEED),
    ).images

    ours = comparison.alone(model, asked(model, config, **checkpoint.asks))

    difference = comparison.difference(ours, [np.asarray(each) for each in theirs])
    assert difference.same, difference
    assert model.info.recipe.name == checkpoint.recipe


@pytest.mark.parametrize("kind", ["inpaint", "inpaint_xl"])
def test_a_file_for_inpainting(tmp_path: Path, kind: str) -> None:
    """It warms up, and draws texts and masks as diffusers does with the folder of its parts."""
    folder = getattr(tiny_models, f"build_{kind}")(tmp_path / "painter")
    model, config = loaded(write_single_file(folder, tmp_path / "painter.safetensors"))
    text = asked(model, config, steps=4)
    masked = replace(text, image=gallery.reference(1), mask=gallery.reference(2))
    reference = Reference(folder)

    learned = warm_up(StepLoop(model, batch_limit=2), size=SIDE, batch_limit=2)

    assert model.info.inpainting
    assert any(isinstance(each, StepBaseline) for each in learned)
    for request in (text, masked):
        ours = comparison.alone(model, request)
        assert comparison.difference(ours, reference.images(request)).same


def test_a_file_for_editing_is_refused_by_name(tmp_path: Path) -> None:
    """The line says what it is, and what is drawn."""
    folder = tiny_models.build_sd(tmp_path / "editor", unet_changes={"in_channels": 8})
    path = write_single_file(folder, tmp_path / "editor.safetensors")

    with pytest.raises(ModelUnsuitable, match=r"editor\.safetensors is an editing or depth model"):
        loaded(path)


@pytest.mark.long
def test_twelve_adapters_of_one_model(tmp_path: Path) -> None:
    """Each is found in its folder, and twelve rows with one each give what diffusers gives."""
    path, folder = folder_of("sd")(tmp_path)
    model, config = loaded(path)
    reference, place = Reference(folder), tmp_path / "loras"
    files = adapter_files.several(place, reference.pipeline)
    for number in (11, 12):
        name = f"style {number}"
        files[name] = adapter_files.lora(
            place / f"{name}.safetensors", reference.pipeline, {"unet": ("to_q",)}, seed=number
        )
    base = asked(model, config, steps=2)
    requests = {
        name: asked(model, config, steps=2, adapters=[{"name": name, "weight": 0.8}])
        for name in files
    }

    found = comparison.together(
        model, requests, batch_limit=len(files), adapters=AdapterCatalog(place)
    )

    assert len(files) == 12
    plain_image = comparison.alone(model, base)
    for name, request in requests.items():
        assert request.adapters == (Adapter(name=name, weight=0.8, text_weight=0.8),)
        theirs = adapted.images(reference, request, files)
        assert comparison.difference(found[name].images, theirs).same, name
        assert not comparison.difference(theirs, plain_image).same, name
