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

from service.config.table import Config
from service.core.model import ModelInfo
from service.core.spec import GenerationSpec
from service.core.stage import Stage
from service.diffusion import device as devices
from service.diffusion import vae
from service.diffusion.families.base import BatchKey, Family
from service.diffusion.families.unet import FAMILIES
from service.diffusion.loop.samplers import Samplers
from service.diffusion.memory.usage import is_out_of_memory
from service.errors import GpuBusy, GpuTooSmall, ModelError, ModelUnsuitable, ServiceError
from service.models import catalog, layout
from service.models.defaults import known
from service.models.defaults.aligned_steps import aligned
from service.models.hub import pull
from service.models.layout import Layout
from service.models.source import Source
from service.models.vae.source import VaeSource

log = structlog.get_logger(__name__)


LONGEST_CAUSE: Final = 400
"""Characters of another library's error that are shown: a command in it has to come through."""

OTHERS = 0.15
"""Share of a GPU's memory; the driver and our own context take about 0.4 GB of 6."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """A loaded model: its family's adapter, and where it computes."""

    family: Family
    info: ModelInfo
    samplers: Samplers
    device: torch.device
    offloaded: bool = False
    """Whether parts come to the device only when they are needed."""
    vae_tiling_above: int = 0
    """Longest side in pixels of an image that is decoded whole; 0 for any."""

    def batch_key(self, request: GenerationSpec) -> BatchKey:
        """Return the group of images that a request's share calls with."""
        limits = self.family.limits
        size = limits.latent_size(request.width, request.height)
        return BatchKey(
            model=self.info.model_id,
            shape=None if limits.mixes_shapes else size,
            input_channels=limits.input_channels,
            tokens=limits.prompt_tokens,
        )

    def without_gradients(self) -> AbstractContextManager[object]:
        """Return the context to compute in."""
        # Offloading makes new parameters at every call, and diffusers does it under no_grad;
        # where nothing is offloaded inference mode saves some work per operation.
        return torch.no_grad() if self.offloaded else torch.inference_mode()


def load_model(
    source: Source,
    config: Config,
    begin: Callable[[Stage, int], None] = lambda _stage, _images: None,
    *,
    place: bool = True,
) -> Model:
    """Load a model and place it, as the settings say.

    Without ``place`` it stays in host memory unless the settings offload parts of it.

    ``begin`` is called with ``fetch`` before a model is fetched, and with ``load`` after it.

    Raises:
        ModelError: the model is missing, damaged, of another kind, or has no safety
            checker although one is asked for.
        ConfigError: this machine has no such device, or cannot compute in this format.

    """
    started = time.perf_counter()
    _quieten()
    if config.torch_threads:
        torch.set_num_threads(config.torch_threads)
    target = devices.chosen_device(config.device, config.cpu_offload, config.vram_limit_gb)
    devices.limit_memory(target, config.vram_limit_gb)
    numbers = devices.chosen_dtype(config.dtype, target)
    half = numbers == torch.float16
    try:
        if source.path is None:
            begin(Stage.FETCH, 0)
            source = _fetched(source, config.model_cache_dir, half=half)
            begin(Stage.LOAD, 0)
        found = layout.read(
            source, config.model_cache_dir, prediction_type=config.prediction_type, half=half
        )
        recipe = known.recipe_of(source, found, config)
        kind = FAMILIES[found.family]
        samplers = Samplers(
            found.schedule.numbers,
            counts_positions=kind.counts_positions,
            most_steps=config.max_steps,
            ten=aligned(found),
        )
        decoder, small = vae.chosen(config, recipe, found), vae.preview(config)
        pipeline = _pipeline(
            source, found, numbers, safety_checker=config.safety_checker, decoder=decoder
        )
        _limit_tokens(pipeline)
        devices.arrange(pipeline, config, upcast_vae=kind.upcasts_vae)
        now = place or target.type == "cpu" or config.cpu_offload != "none"
        if now:
            devices.put(pipeline, target, config.cpu_offload)
        family = kind(pipeline, target)
        if small is not None:
            tiny = vae.read(small, numbers)
            vae.demand_fit(small.name, tiny, pipeline.vae)
            family.small_decoder = tiny.to(target) if now else tiny
    except ServiceError:
        raise
    except Exception as error:  # the libraries raise about ten classes, none of them documented
        raise _model_error(source, error, target) from error
    info = ModelInfo(
        model_id=source.name,
        version=source.version,
        family=found.family,
        adapters=known.adapters_of(found),
        sizes=known.sizes_of(found),
        max_clip_skip=known.max_clip_skip_of(found),
        recipe=recipe,
        vae=decoder.name if decoder is not None else "",
        demo=source.demo,
        device=devices.device_name(target),
        gpu=target.type == "cuda",
        gpu_uuid=devices.device_uuid(target),
        dtype=str(numbers).removeprefix("torch."),
        load_seconds=time.perf_counter() - started,
        prompt_tokens=family.limits.prompt_tokens,
        prediction_type=found.schedule.prediction_type,
        prediction_from=found.schedule.prediction_from,
        configuration=found.configuration,
        ignored=found.file.ignored if found.file else (),
        samplers=samplers.ranges,
        schedules=samplers.schedules,
        inpainting=found.inpainting,
    )
    if recipe.guessed:
        log.warning("model_recipe_guessed", model_id=source.id, recipe=recipe.name, **recipe.values)
    for name, held in recipe.cut:
        wanted = recipe.values[name]
        facts = {"recipe": recipe.name, "value": name, "wanted": wanted, "held": held}
        log.warning("model_recipe_cut", model_id=source.id, **facts)
    if info.ignored:
        log.warning("model_tensors_ignored", model_id=source.id, groups=list(info.ignored))
    return Model(
        family=family,
        info=info,
        samplers=samplers,
        device=target,
        offloaded=config.cpu_offload != "none",
        vae_tiling_above=config.vae_tiling_above,
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
    return pull.fetch(source.id, cache_dir, half=half)


def _pipeline(
    source: Source,
    found: Layout,
    numbers: torch.dtype,
    *,
    safety_checker: bool,
    decoder: VaeSource | None,
) -> Any:
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
    if decoder is not None:
        own, parts["vae"] = parts["vae"], vae.read(decoder, numbers)
        vae.demand_fit(decoder.name, parts["vae"], own)
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
            transient=kind is GpuBusy or device.type != "cuda",
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
