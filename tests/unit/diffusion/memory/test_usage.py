import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch

from service.core.capacity import MemoryUse
from service.diffusion.memory import usage
from service.system import host_memory

CPU = torch.device("cpu")
ROOT = Path(__file__).parents[4]


def test_on_a_cpu_only_the_host_is_reported() -> None:
    """Without a GPU its four figures are 0 and the resident set is the process's own."""
    use = usage.Meter(CPU).use()

    assert use == MemoryUse(host_resident=use.host_resident)
    assert use.host_resident == pytest.approx(psutil.Process().memory_info().rss, rel=0.1)


WORK = """
import torch
from service.diffusion.memory import usage

meter = usage.Meter(torch.device("cpu"))
meter.begin()
torch.ones(64 * 2**20, dtype=torch.uint8)
print(meter.taken())
meter.begin()
print(meter.taken())
"""


def test_what_work_takes() -> None:
    """The most that was in use at a time counts, also when it is given back before the end."""
    # A process of its own: one that has freed as much before takes nothing new.
    told = subprocess.run(
        [sys.executable, "-c", WORK], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout

    work, nothing = map(int, told.split())
    assert work == pytest.approx(64 * 2**20, rel=0.2)
    assert nothing < 16 * 2**20


def test_where_nothing_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that keeps no peak gives no figure, rather than 0."""
    monkeypatch.setattr(host_memory, "reset_peak", lambda: False)
    meter = usage.Meter(CPU)

    meter.begin()

    assert meter.taken() is None


def test_a_gpu_is_asked_through_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Free is what the driver and the process's share leave, and what torch keeps unused."""
    figures = {
        "mem_get_info": (3_000, 10_000),
        "memory_reserved": 2_000,
        "memory_allocated": 1_500,
        "max_memory_allocated": 1_900,
        "reset_peak_memory_stats": None,
        "get_per_process_memory_fraction": 0.4,
        "get_device_properties": SimpleNamespace(total_memory=10_000),
    }
    for name, value in figures.items():
        monkeypatch.setattr(torch.cuda, name, lambda _device, value=value: value)
    meter = usage.Meter(torch.device("cuda:0"))

    meter.begin()

    assert meter.taken() == 400
    assert meter.available() == 2_000 + 500
    use = meter.use()
    assert (use.allocated, use.reserved, use.peak, use.total) == (1_500, 2_000, 1_900, 10_000)


def test_the_peak_of_a_gpu_is_that_of_all_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measuring single steps does not lose the highest figure."""
    peaks = iter([700, 200])
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _device: next(peaks))
    for name in ("reset_peak_memory_stats", "memory_allocated", "memory_reserved"):
        monkeypatch.setattr(torch.cuda, name, lambda _device: 0)
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda _device: SimpleNamespace(total_memory=1)
    )
    meter = usage.Meter(torch.device("cuda:0"))

    meter.begin()

    assert meter.use().peak == 700


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("could not create a primitive"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"),
    ],
)
def test_out_of_memory(error: Exception) -> None:
    """All wordings of exhausted memory are known, and none is taken for a lost device."""
    assert usage.is_out_of_memory(error)
    assert not usage.is_device_lost(error)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("CUDA error: device-side assert triggered"),
        torch.AcceleratorError("an illegal memory access was encountered"),
    ],
)
def test_lost_device(error: Exception) -> None:
    """An error that poisons the context is told from one that a retry could cure."""
    assert usage.is_device_lost(error)
    assert not usage.is_out_of_memory(error)


@pytest.mark.parametrize("error", [ValueError("not enough memory"), RuntimeError("shapes differ")])
def test_other_errors(error: Exception) -> None:
    """Other errors are neither."""
    assert not usage.is_out_of_memory(error)
    assert not usage.is_device_lost(error)


def test_on_a_cpu_there_is_nothing_to_free_or_to_wait_for() -> None:
    """Both calls are allowed on every device."""
    usage.free_cache(CPU)
    usage.synchronise(CPU)


def test_host_memory_goes_back_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a CPU engine frees is in the heap."""
    trimmed: list[str] = []
    monkeypatch.setattr(usage, "trim", lambda: trimmed.append("trimmed"))
    usage.free_cache(CPU)
    assert trimmed == ["trimmed"]
