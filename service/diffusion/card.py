"""Whether the GPU and its driver can carry the model, asked of the driver before torch loads."""

import ctypes
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import pynvml
import structlog

from service.config import Config
from service.diffusion import flavour
from service.diffusion.flavour import Capability, TorchBuild
from service.errors import (
    ConfigError,
    GpuBusy,
    GpuMissing,
    GpuTooSmall,
    ModelError,
    TorchMismatch,
)
from service.models import weights
from service.models.catalog import Source
from service.telemetry import gpu_reading

log = structlog.get_logger(__name__)

CUDA_LIBRARY: Final = "libcuda.so.1"
GIB: Final = 2**30

CONTEXT: Final = int(0.6 * GIB)
"""What CUDA takes that torch does not count: its context, and kernels as they are loaded. 0.3 GB
on Pascal; up to 0.6 with the builds for newer cards."""


@dataclass(frozen=True, kw_only=True)
class Card:
    """What the driver says about one GPU before anything runs on it."""

    name: str
    driver: str
    cuda: int | None
    """Major version of the newest CUDA that the driver serves."""
    capability: Capability | None
    total: int | None
    """Bytes of memory."""
    used: int | None


class NoCardError(Exception):
    """There is no GPU to use, and why."""


def check(config: Config, source: Source) -> None:
    """Refuse a GPU, a driver or a torch that the model cannot run with; say so of a CPU.

    Raises:
        GpuMissing: one is asked for, and there is none.
        TorchMismatch: this torch does not fit the GPU or its driver.
        GpuTooSmall, GpuBusy: the weights alone do not fit into its memory, or not now.
        ConfigError: VRAM_LIMIT_GB is more than it has.

    """
    build = flavour.installed()
    if config.device == "cpu" or build is None or build.other:
        return
    demanded = config.device == "cuda" or config.cpu_offload != "none" or config.vram_limit_gb > 0
    try:
        card = look(config.cuda_visible_devices)
    except NoCardError as error:
        if demanded:
            raise GpuMissing(f"{_demand(config)}: {error} Or set DEVICE=cpu.") from error
        warn_of_cpu(str(error))
        return
    if card is None:
        return  # Only CUDA itself can tell.
    if build.cuda is None:
        said = (
            f"torch {build.version} cannot use {card.name}: it is built for CPUs. "
            f"{flavour.cure(card.capability)}"
        )
        if demanded:
            raise TorchMismatch(f"{_demand(config)}: {said}")
        warn_of_cpu(said)
        return
    _demand_driver(card, build)
    if card.total is not None:
        demand_limit(config.vram_limit_gb, card.total, card.name)
    if config.cpu_offload == "none":
        _demand_memory(config, source, card)


def demand_limit(gigabytes: float, total: int, name: str) -> None:
    """Refuse a limit above what a card has; one of "6 GB" has 5.9.

    Raises:
        ConfigError: the limit is above that.

    """
    most = math.ceil(total / GIB)
    if gigabytes > most:
        raise ConfigError(
            f"VRAM_LIMIT_GB={gigabytes:g}: {name} has {total / GIB:.1f} GB; set it to {most} or "
            "less, or to 0 for the whole card."
        )


def warn_of_cpu(reason: str) -> None:
    """Say loudly that pictures take many times longer than a GPU would take."""
    log.warning(
        "NO_GPU_USED",
        consequence="PICTURES ARE MADE ON THE CPU, WHICH TAKES MANY TIMES AS LONG",
        reason=reason,
        silence="DEVICE=cpu",
    )


def look(visible_devices: str) -> Card | None:
    """Return the GPU that would be used; None where NVML is not, but CUDA is (Jetson).

    Raises:
        NoCardError: there is none, with what to do.

    """
    if not gpu_reading.named(visible_devices):
        raise NoCardError("CUDA_VISIBLE_DEVICES names no GPU; set it to 0.")
    with _library() as there:
        if not there:
            return None
        try:
            handle = gpu_reading.find(visible_devices)
        except pynvml.NVMLError as error:
            raise NoCardError(
                f"the driver does not answer ({error}); see 'nvidia-smi', and restart the machine."
            ) from error
        if handle is None:
            count = pynvml.nvmlDeviceGetCount()
            raise NoCardError(
                f"CUDA_VISIBLE_DEVICES={visible_devices} is none of the {count} GPUs that the "
                "driver shows; see 'nvidia-smi -L'."
            )
        return _card(handle)


@contextmanager
def _library() -> Iterator[bool]:
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        if _loadable(CUDA_LIBRARY):
            yield False
            return
        raise NoCardError(
            f"there is no NVIDIA driver here ({error}). Install it; in a container, start it "
            "with --gpus all (NVIDIA Container Toolkit)."
        ) from error
    try:
        yield True
    finally:
        pynvml.nvmlShutdown()


def _card(handle: object) -> Card:
    memory = _asked("nvmlDeviceGetMemoryInfo", handle)
    capability = _asked("nvmlDeviceGetCudaComputeCapability", handle)
    cuda = _asked("nvmlSystemGetCudaDriverVersion_v2")
    return Card(
        name=_text(_asked("nvmlDeviceGetName", handle)) or "the GPU",
        driver=_text(_asked("nvmlSystemGetDriverVersion")),
        cuda=None if cuda is None else int(cuda) // 1000,  # 13010 is 13.1.
        capability=None if capability is None else (int(capability[0]), int(capability[1])),
        total=None if memory is None else int(memory.total),
        used=None if memory is None else int(memory.used),
    )


def _asked(name: str, *of: object) -> Any:
    """Return what the driver says, or None where it does not: no figure forbids a start."""
    try:
        return getattr(pynvml, name)(*of)
    except (pynvml.NVMLError, AttributeError):
        return None


def _demand_driver(card: Card, build: TorchBuild) -> None:
    wanted = build.cuda[0] if build.cuda else 0
    if card.cuda is not None and card.cuda < wanted:
        raise TorchMismatch(
            f"torch {build.version} wants a driver for CUDA {wanted}, and that of {card.name} "
            f"serves CUDA {card.cuda}. {flavour.older_driver_cure(card.driver, build)}"
        )


def _demand_memory(config: Config, source: Source, card: Card) -> None:
    if source.path is None or card.total is None or card.used is None:
        return
    try:
        need = weights.needed_bytes(source, half=config.dtype != "float32")
    except ModelError:
        return  # Loading tells it, and the service stays to say so.
    limit = config.vram_limit_gb
    if 0 < limit * GIB < need <= card.total:
        raise GpuTooSmall(
            f"the weights of {source.id} take {need / GIB:.1f} GB, and VRAM_LIMIT_GB={limit:g} "
            "allows less. Raise it, or set CPU_OFFLOAD=model (or sequential), DTYPE=float16, or a "
            "smaller model."
        )
    if need > card.total:
        raise GpuTooSmall(
            f"the weights of {source.id} take {need / GIB:.1f} GB, and {card.name} has "
            f"{card.total / GIB:.1f} GB. Set CPU_OFFLOAD=model (or sequential), DTYPE=float16, or "
            "a smaller model."
        )
    if need > card.total - card.used:
        raise GpuBusy(
            f"the weights of {source.id} take {need / GIB:.1f} GB, and {card.used / GIB:.1f} of "
            f"the {card.total / GIB:.1f} GB of {card.name} are taken. End what holds them "
            "('nvidia-smi' lists it), or choose another GPU with CUDA_VISIBLE_DEVICES."
        )


def _demand(config: Config) -> str:
    if config.device == "cuda":
        return "DEVICE=cuda"
    if config.vram_limit_gb:
        return f"VRAM_LIMIT_GB={config.vram_limit_gb:g}"
    return f"CPU_OFFLOAD={config.cpu_offload}"


def _loadable(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value or "")
