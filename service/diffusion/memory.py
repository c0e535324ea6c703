"""How much memory the engine uses, and how it notices that there is no more."""

import os
from pathlib import Path

import torch

from service.diffusion.generation import MemoryUse
from service.heap import trim

STATM = Path("/proc/self/statm")
OUT_OF_MEMORY = (
    "not enough memory",
    "can't allocate memory",
    "cannot allocate memory",
    "cuda error: out of memory",
    "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed",
)
"""How the host's allocator and CUDA's libraries word it; they raise a plain RuntimeError."""


def memory_use(device: torch.device) -> MemoryUse:
    """Return what the process holds now, in bytes; costs tens of microseconds."""
    if device.type != "cuda":
        return MemoryUse(host_resident=host_resident())
    return MemoryUse(
        allocated=torch.cuda.memory_allocated(device),
        reserved=torch.cuda.memory_reserved(device),
        peak=torch.cuda.max_memory_allocated(device),
        total=torch.cuda.get_device_properties(device).total_memory,
        host_resident=host_resident(),
    )


def host_resident() -> int:
    """Return the resident set of this process in bytes, 0 where /proc does not tell."""
    try:
        # Second field: resident pages, see proc(5).
        pages = int(STATM.read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error means that memory, the GPU's or the host's, ran out."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(words in text for words in OUT_OF_MEMORY)


def free_cache(device: torch.device) -> None:
    """Give blocks that no tensor uses back to the driver, and the heap's to the system."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    trim()


def is_device_lost(error: BaseException) -> bool:
    """Tell whether an error leaves the GPU's context unusable for the rest of the process.

    After an illegal access or a failed assertion in a kernel every later call fails too
    (CUDA C Programming Guide, error checking).
    """
    if is_out_of_memory(error):
        return False
    # torch 2.8 gave these a class of their own; before, the text was the only mark.
    lost = getattr(torch, "AcceleratorError", None)
    return (lost is not None and isinstance(error, lost)) or (
        isinstance(error, RuntimeError) and "CUDA error" in str(error)
    )


def synchronise(device: torch.device) -> None:
    """Wait until the device has done what it was given; a CPU always has."""
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()
