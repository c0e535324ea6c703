"""How much memory the engine uses, and how it notices that there is no more."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from service.core.capacity import MemoryUse
from service.system import host_memory
from service.system.malloc import trim

ONEDNN_FAILED = ("could not create a primitive", "could not create a memory")
OUT_OF_MEMORY = (
    "not enough memory",
    "can't allocate memory",
    "cannot allocate memory",
    "cuda error: out of memory",
    "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed",
    "std::bad_alloc",
    *ONEDNN_FAILED,
)
"""How the host's allocator, CUDA's libraries and oneDNN (the last two) word it; they raise a
plain RuntimeError."""


class Meter:
    """Measures what work takes of a device's memory, beyond what was in use before it.

    On a GPU these are torch's own counters; on a CPU the resident set, which also grows by
    what the allocator keeps, so that a single figure may be too low or too high: it is for
    those who learn from many.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.disturbed: Callable[[], bool] = lambda: False
        """Whether other work of this process takes memory now, so that no figure means anything."""
        self._before = 0
        self._watched = False
        self._peak = 0

    @property
    def _cuda(self) -> bool:
        return self._device.type == "cuda"

    def begin(self) -> None:
        """Take what is in use now as nothing."""
        if self._cuda:
            self._peak = max(self._peak, torch.cuda.max_memory_allocated(self._device))
            torch.cuda.reset_peak_memory_stats(self._device)
            self._before = torch.cuda.memory_allocated(self._device)
            self._watched = not self.disturbed()
        else:
            self._watched = host_memory.reset_peak() and not self.disturbed()
            self._before = host_memory.resident()

    def taken(self) -> int | None:
        """Return the most bytes in use at a time since ``begin``; None where nothing tells."""
        if not self._watched:
            return None
        if self._cuda:
            return torch.cuda.max_memory_allocated(self._device) - self._before
        return max(host_memory.peak() - self._before, 0)

    def available(self) -> int | None:
        """Return the bytes that work may take now, the process's own unused ones included."""
        if not self._cuda:
            return host_memory.available()
        free, total = torch.cuda.mem_get_info(self._device)
        reserved = torch.cuda.memory_reserved(self._device)
        share = torch.cuda.get_per_process_memory_fraction(self._device)
        free = min(free, max(int(total * share) - reserved, 0))
        return free + reserved - torch.cuda.memory_allocated(self._device)

    def use(self) -> MemoryUse:
        """Return what the process holds now, in bytes; costs tens of microseconds."""
        if not self._cuda:
            return MemoryUse(host_resident=host_memory.resident())
        self._peak = max(self._peak, torch.cuda.max_memory_allocated(self._device))
        return MemoryUse(
            allocated=torch.cuda.memory_allocated(self._device),
            reserved=torch.cuda.memory_reserved(self._device),
            peak=self._peak,
            total=torch.cuda.get_device_properties(self._device).total_memory,
            host_resident=host_memory.resident(),
        )


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error means that memory, the GPU's or the host's, ran out."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(words in text for words in OUT_OF_MEMORY)


def is_of_onednn(error: BaseException) -> bool:
    """Tell whether it was oneDNN that could not create a kernel.

    What it could not create for want of memory it does not create later either, when there is
    memory again.
    """
    return isinstance(error, RuntimeError) and any(words in str(error) for words in ONEDNN_FAILED)


@contextmanager
def kernels(*, onednn: bool) -> Iterator[None]:
    """Work with oneDNN or, on a CPU, with torch's own kernels, which are slower."""
    if onednn:
        yield
        return
    # Not ``flags``: it also sets what this torch then warns of.
    set_flags: Callable[..., tuple[bool, ...]] = torch.backends.mkldnn.set_flags
    before, *_ = set_flags(_enabled=False, _fp32_precision=None)
    try:
        yield
    finally:
        set_flags(_enabled=before, _fp32_precision=None)


def free_cache(device: torch.device) -> None:
    """Give what no tensor uses back to the driver, and the heap's holes to the system."""
    gc.collect()  # An error's frames and what they hold may be a cycle.
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
