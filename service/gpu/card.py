"""Whether the GPU and its driver can carry the model, asked of the driver before torch loads."""

import ctypes
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import pynvml
import structlog

from service.errors import ConfigError
from service.gpu import nvml
from service.gpu.torch_build import Capability

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
    """Say loudly that images take many times longer than a GPU would take."""
    log.warning(
        "NO_GPU_USED",
        consequence="IMAGES ARE MADE ON THE CPU, WHICH TAKES MANY TIMES AS LONG",
        reason=reason,
        silence="DEVICE=cpu",
    )


def look(visible_devices: str) -> Card | None:
    """Return the GPU that would be used; None where NVML is not, but CUDA is (Jetson).

    Raises:
        NoCardError: there is none, with what to do.

    """
    if not nvml.named(visible_devices):
        raise NoCardError("CUDA_VISIBLE_DEVICES names no GPU; set it to 0.")
    with _library() as there:
        if not there:
            return None
        try:
            handle = nvml.find(visible_devices)
        except pynvml.NVMLError as error:
            raise NoCardError(
                f"the driver does not answer ({error}); see 'nvidia-smi', and restart the machine."
            ) from error
        if handle is None:
            count = pynvml.nvmlDeviceGetCount()
            raise NoCardError(
                f"CUDA_VISIBLE_DEVICES={visible_devices} names no GPU of this machine, which has "
                f"{count}. Set it to an index or a UUID that 'nvidia-smi -L' lists."
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
        name=nvml.text(_asked("nvmlDeviceGetName", handle)) or "the GPU",
        driver=nvml.text(_asked("nvmlSystemGetDriverVersion")),
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


def _loadable(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True
