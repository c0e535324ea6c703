"""Loading a Stable Diffusion model with diffusers: SD 1.x, 2.x and XL, safetensors only."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import diffusers.utils.logging
import structlog
import torch
import transformers.utils.logging
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler

from service.diffusion import place
from service.diffusion.generation import ModelInfo
from service.diffusion.memory import is_out_of_memory
from service.diffusion.samplers import Samplers
from service.errors import GpuBusy, GpuTooSmall, ModelError, ModelUnsuitable, ServiceError
from service.models import catalog, hub, layout
from service.models.catalog import Source
from service.models.layout import Layout

log = structlog.get_logger(__name__)


LONGEST_CAUSE: Final = 400
"""Characters of another library's error that are shown: a command in it has to come through."""

OTHERS = 0.15
"""Share of a GPU's memory; the driver and our own context take about 0.4 GB of 6."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """A loaded model: diffusers' pipeline as the holder of its parts, and where it computes."""

    pipeline: Any
    info: ModelInfo
    samplers: Samplers
    device: torch.device
    offloaded: bool = False
    """Whether parts come to the device only when they are needed."""
    vae_tiling_above: int = 0
    """Longest side in pixels of a picture that is decoded whole; 0 for any."""

    def without_gradients(self) -> AbstractContextManager[object]:
        """Return the context to compute in."""
        # Offloading makes new parameters at every call, and diffusers does it under no_grad;
        # where nothing is offloaded inference mode saves some work per operation.
        return torch.no_grad() if self.offloaded else torch.inference_mode()


def load_model(
    source: Source,
    *,
    cache_dir: Path,
    device: str = "auto",
    dtype: str = "auto",
    threads: int = 0,
    attention_slicing: bool = False,
    cpu_offload: str = "none",
    vram_limit_gb: float = 0.0,
    vae_tiling: bool = False,
    vae_tiling_above: int = 0,
    safety_checker: bool = False,
    prediction_type: str = layout.AUTO,
    most_steps: int = 50,
    begin: Callable[[str, int], None] = lambda _stage, _pictures: None,
) -> Model:
    """Load a model and place it; the arguments are the settings of the same names.

    ``begin`` is called with ``fetch`` before a model is fetched, and with ``load`` after it.

    Raises:
        ModelError: the model is missing, damaged, of another kind, or has no safety
            checker although one is asked for.
        ConfigError: this machine has no such device, or cannot compute in this format.

    """
    started = time.perf_counter()
    _quieten()
    if threads:
        torch.set_num_threads(threads)
    target = place.chosen_device(device, cpu_offload, vram_limit_gb)
    place.limit_memory(target, vram_limit_gb)
    numbers = place.chosen_dtype(dtype, target)
    try:
        if source.path is None:
            begin("fetch", 0)
            source = _fetched(source, cache_dir, half=numbers == torch.float16)
            begin("load", 0)
        found = layout.read(
            source,
            cache_dir,
            prediction_type=prediction_type,
            half=numbers == torch.float16,
        )
        samplers = Samplers(
            found.schedule.numbers, counts_positions=found.family == "sdxl", most_steps=most_steps
        )
        pipeline = _pipeline(source, found, numbers, safety_checker=safety_checker)
        _limit_tokens(pipeline)
        place.arrange(
            pipeline,
            upcast_vae=found.family == "sdxl",
            attention_slicing=attention_slicing,
            vae_tiling=vae_tiling,
        )
        place.put(pipeline, target, cpu_offload)
    except ServiceError:
        raise
    except Exception as error:  # the libraries raise about ten classes, none of them documented
        raise _model_error(source, error, target) from error
    info = ModelInfo(
        model_id=source.id,
        version=source.version,
        family=found.family,
        demo=source.demo,
        device=place.device_name(target),
        gpu=target.type == "cuda",
        dtype=str(numbers).removeprefix("torch."),
        load_seconds=time.perf_counter() - started,
        prompt_tokens=pipeline.tokenizer.model_max_length,
        prediction_type=found.schedule.prediction_type,
        prediction_from=found.schedule.prediction_from,
        configuration=found.configuration,
        ignored=found.file.ignored if found.file else (),
        samplers=samplers.ranges,
    )
    if info.ignored:
        log.warning("model_tensors_ignored", model_id=source.id, groups=list(info.ignored))
    return Model(
        pipeline=pipeline,
        info=info,
        samplers=samplers,
        device=target,
        offloaded=cpu_offload != "none",
        vae_tiling_above=vae_tiling_above,
    )


def _quieten() -> None:
    # Both libraries print the prompts they cut, and progress bars between log lines.
    for logging in (diffusers.utils.logging, transformers.utils.logging):
        logging.set_verbosity_error()
        logging.disable_progress_bar()


def _fetched(source: Source, cache_dir: Path, *, half: bool) -> Source:
    """Return the source with a path, after fetching the model from the hub."""
    if catalog.offline():
        raise catalog.missing_offline(source.id, cache_dir)
    return hub.fetch(source.id, cache_dir, half=half)


def _pipeline(source: Source, found: Layout, numbers: torch.dtype, *, safety_checker: bool) -> Any:
    """Return diffusers' pipeline around the model's parts, still on the CPU."""
    if safety_checker and (found.family == "sdxl" or found.file is not None):
        raise ModelUnsuitable(
            f"SAFETY_CHECKER=true, but {source.id} has none: use a model that has one, or set "
            "SAFETY_CHECKER=false."
        )
    # Imported late: these print about optional packages unless told before (_quieten), and a
    # model that is not there should be reported without the seconds that they take.
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import (  # noqa: PLC0415
        StableDiffusionPipeline,
    )
    from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import (  # noqa: PLC0415
        StableDiffusionXLPipeline,
    )

    from service.diffusion import from_file, from_folder  # noqa: PLC0415

    if found.file is not None or source.path is None:
        parts = from_file.read_parts(found, dtype=numbers)
    else:
        parts = from_folder.read_parts(
            source.path, found, dtype=numbers, safety_checker=safety_checker
        )
    kind: Any = StableDiffusionPipeline
    if found.family == "sdxl":
        kind, parts["add_watermarker"] = StableDiffusionXLPipeline, False
        parts |= found.settings
    # The loop's own samplers draw; the pipeline only wants to have one.
    return kind(**parts, scheduler=EulerDiscreteScheduler(steps_offset=1))


def _limit_tokens(pipeline: Any) -> None:
    """Let no tokenizer promise more than its encoder reads; without a setting it promises 1e30."""
    for end in ("", "_2"):
        encoder = getattr(pipeline, f"text_encoder{end}", None)
        if encoder is not None:
            tokenizer = getattr(pipeline, f"tokenizer{end}")
            most = encoder.config.max_position_embeddings
            tokenizer.model_max_length = min(tokenizer.model_max_length, most)


def _model_error(source: Source, error: Exception, device: torch.device) -> ModelError:
    cause = " ".join(str(error).split())[:LONGEST_CAUSE] or type(error).__name__
    if is_out_of_memory(error):
        kind = GpuBusy if _held_by_others(device) else GpuTooSmall
        return kind(
            f"{source.id} does not fit into memory ({cause}). Use CPU_OFFLOAD=model, a smaller "
            "model, or end other programs that hold the GPU's memory ('nvidia-smi').",
            # A card that is too small stays so; what others hold, they may give back.
            passing=kind is GpuBusy or device.type != "cuda",
        )
    return ModelError(
        f"{source.id} cannot be loaded ({type(error).__name__}: {cause}). Use another copy of the "
        "model, and take all of its parts from one publisher."
    )


def _held_by_others(device: torch.device) -> bool:
    """Tell whether other programs hold more of a GPU than the driver does for itself."""
    if device.type != "cuda":
        return False
    free, total = torch.cuda.mem_get_info(device)
    return total - free - torch.cuda.memory_reserved(device) > OTHERS * total
