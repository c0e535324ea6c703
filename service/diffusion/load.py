"""Loading a Stable Diffusion model with diffusers: SD 1.x, 2.x and XL, safetensors only."""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import diffusers
import structlog
import torch
import transformers
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import (
    StableDiffusionPipeline,
)
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import (
    StableDiffusionXLPipeline,
)

from service.diffusion import catalog
from service.diffusion.catalog import Source
from service.diffusion.generation import ModelInfo
from service.errors import ConfigError, ModelError

log = structlog.get_logger(__name__)

FAMILIES = {
    "StableDiffusionPipeline": "sd",
    "LatentConsistencyModelPipeline": "sd",
    "StableDiffusionXLPipeline": "sdxl",
}
"""Family by the pipeline class that a model names; a consistency model has SD's parts."""
PIPELINES: dict[str, Any] = {"sd": StableDiffusionPipeline, "sdxl": StableDiffusionXLPipeline}
DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}


@dataclass(frozen=True, kw_only=True)
class Model:
    """A loaded model: diffusers' pipeline as the holder of its parts, and where it computes."""

    pipeline: Any
    info: ModelInfo
    device: torch.device


def load_model(
    source: Source,
    *,
    cache_dir: Path,
    device: str = "auto",
    dtype: str = "auto",
    threads: int = 0,
    attention_slicing: bool = False,
    cpu_offload: str = "none",
    vae_slicing: bool = True,
    vae_tiling: bool = False,
    safety_checker: bool = False,
) -> Model:
    """Load a model and place it; the arguments are the settings of the same names.

    Raises:
        ModelError: the model is missing, damaged, of another kind, or has no safety
            checker although one is asked for.
        ConfigError: this machine has no such device, or cannot compute in this format.

    """
    started = time.perf_counter()
    # Both libraries print the prompts they truncate, and progress bars between log lines.
    diffusers.utils.logging.set_verbosity_error()
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    if threads:
        torch.set_num_threads(threads)
    place = chosen_device(device)
    number_format = chosen_dtype(dtype, place)
    if cpu_offload != "none" and place.type == "cpu":
        raise ConfigError(f"CPU_OFFLOAD={cpu_offload}: needs a GPU, and there is none to use.")
    pipeline = _from_folder(source, number_format, safety_checker=safety_checker)
    _place(pipeline, place, cpu_offload)
    family = FAMILIES[catalog.pipeline_class(source.path)]
    info = ModelInfo(
        model_id=source.id,
        version=source.version,
        family=family,
        demo=source.demo,
        device=device_name(place),
        gpu=place.type == "cuda",
        dtype=str(number_format).removeprefix("torch."),
        load_seconds=time.perf_counter() - started,
        prompt_tokens=pipeline.tokenizer.model_max_length,
    )
    return Model(pipeline=pipeline, info=info, device=place)


def chosen_device(device: str) -> torch.device:
    """Return the device that a setting means; auto is the GPU if torch can use one.

    Raises:
        ConfigError: a GPU is asked for and there is none.

    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("DEVICE=cuda: torch finds no GPU; see 'nvidia-smi', or use DEVICE=cpu.")
    return torch.device("cuda:0" if device == "cuda" else device)


def chosen_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """Return the number format that a setting means on a device.

    Raises:
        ConfigError: the device cannot compute in it.

    """
    if dtype == "auto":
        return torch.float16 if device.type == "cuda" else torch.float32
    if device.type == "cpu" and dtype == "float16":
        raise ConfigError(
            "DTYPE=float16: a CPU computes in float32 (or bfloat16); leave it at auto."
        )
    return DTYPES[dtype]


def device_name(device: torch.device) -> str:
    """Return ``cpu`` or the GPU's product name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def _from_folder(source: Source, dtype: torch.dtype, *, safety_checker: bool) -> Any:
    family = FAMILIES[catalog.pipeline_class(source.path)]
    return PIPELINES[family].from_pretrained(
        source.path,
        dtype=dtype,
        use_safetensors=True,
        local_files_only=True,
        safety_checker=None,
        feature_extractor=None,
    )


def _place(pipeline: Any, device: torch.device, cpu_offload: str) -> None:
    pipeline.to(device)
