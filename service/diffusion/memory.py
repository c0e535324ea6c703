"""How much memory the engine uses, and how it notices that there is no more."""

import ctypes
import os
import time
from pathlib import Path

import torch

from service.diffusion.generation import MemoryUse

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

TRIM_SECONDS = 10.0
MALLOC_TRIM = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
"""Of glibc; other C libraries have no such call."""


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
    trim_heap()


def trim_heap() -> None:
    """Give pages of the heap that nothing uses back to the system; only glibc keeps them.

    Pictures of many sizes leave holes between what stays, oneDNN's kernels say, and glibc gives
    back no more than the heap's end by itself. It takes 4 to 14 ms.
    """
    if MALLOC_TRIM is not None:
        MALLOC_TRIM(0)


class Housekeeping:
    """Trims the heap of a process that works all the time, but seldom enough not to be felt.

    What was given back has to be fetched again, page by page: a hundred megabytes take some ten
    milliseconds.
    """

    def __init__(self, *, every_seconds: float = TRIM_SECONDS) -> None:
        self._every = every_seconds
        self._due = time.monotonic() + every_seconds

    def tidy(self, *, idle: bool) -> None:
        """Trim now if it is time, or if there is nothing else to do."""
        now = time.monotonic()
        if idle or now >= self._due:
            self._due = now + self._every
            trim_heap()


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
