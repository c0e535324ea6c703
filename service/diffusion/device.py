"""Where a model computes: device, number format, and what saves memory."""

from typing import Any

import structlog
import torch

from service.config.table import Config
from service.errors import ConfigError, GpuMissing, TorchMismatch
from service.gpu import card, torch_build
from service.gpu.card import CONTEXT, GIB

log = structlog.get_logger(__name__)

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}


def chosen_device(
    device: str, cpu_offload: str = "none", vram_limit_gb: float = 0.0
) -> torch.device:
    """Return the device that a setting means; auto is the GPU if torch can use one.

    Raises:
        GpuMissing: a GPU is asked for, or needed by another setting, and torch finds none.
        TorchMismatch: this torch has no kernels for it.

    """
    found = torch.cuda.is_available()
    if device == "cuda" and not found:
        raise GpuMissing("DEVICE=cuda: torch finds no GPU; see 'nvidia-smi', or set DEVICE=cpu.")
    chosen = torch.device("cuda:0" if found and device != "cpu" else "cpu")
    if chosen.type == "cpu" and cpu_offload != "none":
        raise GpuMissing(f"CPU_OFFLOAD={cpu_offload}: needs a GPU, and the model is on a CPU.")
    if chosen.type == "cpu" and vram_limit_gb:
        raise GpuMissing(f"VRAM_LIMIT_GB={vram_limit_gb:g}: needs a GPU, and there is none.")
    if chosen.type == "cuda":
        _demand_kernels(chosen)
    return chosen


def limit_memory(device: torch.device, gigabytes: float) -> None:
    """Let this process take no more of a GPU than so much; 0 for all of it.

    What torch then refuses to allocate is an out-of-memory as any other, and ``Meter.available``
    counts by this share, so that images that cannot fit are refused when they are asked for.

    Raises:
        ConfigError: the GPU has less.

    """
    if not gigabytes:
        return
    total = torch.cuda.get_device_properties(device).total_memory
    card.demand_limit(gigabytes, total, device_name(device))
    share = (gigabytes * GIB - CONTEXT) / total
    torch.cuda.set_per_process_memory_fraction(min(share, 1.0), device)


def chosen_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """Return the number format that a setting means on a device.

    Raises:
        ConfigError: the device cannot compute in it.

    """
    if dtype == "auto":
        return torch.float16 if device.type == "cuda" else torch.float32
    if device.type == "cpu" and dtype == "float16":
        raise ConfigError("DTYPE=float16: needs a GPU; a CPU computes in float32 or bfloat16.")
    if (
        device.type == "cuda"
        and dtype == "bfloat16"
        and not torch.cuda.is_bf16_supported(including_emulation=False)
    ):
        raise ConfigError(
            f"DTYPE=bfloat16: {device_name(device)} does not support it; use float16."
        )
    return DTYPES[dtype]


def device_name(device: torch.device) -> str:
    """Return ``cpu`` or the GPU's product name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def device_uuid(device: torch.device) -> str:
    """Return the UUID of the GPU as NVML writes it; empty for a CPU."""
    cuda = device.type == "cuda"
    return f"GPU-{torch.cuda.get_device_properties(device).uuid}" if cuda else ""


def arrange(pipeline: Any, config: Config, *, upcast_vae: bool) -> None:
    """Apply the settings that trade speed for memory, where the model's parts have them."""
    pipeline.set_progress_bar_config(disable=True)
    vae = pipeline.vae
    if upcast_vae and vae.dtype == torch.float16 and vae.config.get("force_upcast", False):
        # SDXL's VAE overflows in float16. The pipeline casts it for every image; its
        # 0.3 GB in float32 are cheaper than that.
        vae.to(torch.float32)
    if config.attention_slicing:
        # With SDPA it is slower and takes more memory; kept for cards that run out otherwise.
        log.warning("attention_slicing_enabled")
        pipeline.enable_attention_slicing()
    if config.vae_tiling:
        if hasattr(vae, "use_tiling"):
            vae.enable_tiling()
        else:
            log.warning("vae_tiling_unsupported", vae=type(vae).__name__)


def put(pipeline: Any, device: torch.device, cpu_offload: str) -> None:
    """Move the model to where it computes, or let it come there part by part."""
    if cpu_offload == "model":
        pipeline.enable_model_cpu_offload(device=device)
    elif cpu_offload == "sequential":
        pipeline.enable_sequential_cpu_offload(device=device)
    else:
        pipeline.to(device)
    if device.type == "cpu":
        # Channels last: on a CPU AutoencoderTiny decodes in half the time, AutoencoderKL 7 %
        # faster; the UNet gains nothing. On a GPU it is unmeasured, and left alone.
        pipeline.vae.to(memory_format=torch.channels_last)


def _demand_kernels(device: torch.device) -> None:
    """Look whether torch was built for the GPU, then run one kernel to be sure."""
    capability = torch.cuda.get_device_capability(device)
    built_for = torch.cuda.get_arch_list()
    if built_for and not torch_build.serves(capability, built_for):
        raise _mismatch(device, capability, f"it is built for {', '.join(built_for)}")
    try:
        torch.ones(1, device=device).sum().item()
    except RuntimeError as error:
        raise _mismatch(device, capability, str(error).splitlines()[0]) from error


def _mismatch(device: torch.device, capability: tuple[int, int], cause: str) -> TorchMismatch:
    major, minor = capability
    return TorchMismatch(
        f"torch {torch.__version__} cannot compute on {device_name(device)} (compute capability "
        f"{major}.{minor}): {cause}. {torch_build.cure(capability)}"
    )
