from pathlib import Path

import psutil
import pytest
import torch

from service.diffusion import memory
from service.diffusion.generation import MemoryUse

CPU = torch.device("cpu")


def test_on_a_cpu_only_the_host_is_reported() -> None:
    """Without a GPU its four figures are 0 and the resident set is the process's own."""
    use = memory.memory_use(CPU)

    assert use == MemoryUse(host_resident=use.host_resident)
    assert use.host_resident == pytest.approx(psutil.Process().memory_info().rss, rel=0.1)


@pytest.mark.parametrize("content", [None, "", "1", "many pages"])
def test_no_proc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str | None) -> None:
    """Where /proc does not tell, the resident set is 0 and nothing breaks."""
    path = tmp_path / "statm"
    if content is not None:
        path.write_text(content)
    monkeypatch.setattr(memory, "STATM", path)

    assert memory.host_resident() == 0


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"),
    ],
)
def test_out_of_memory(error: Exception) -> None:
    """All wordings of exhausted memory are known, and none is taken for a lost device."""
    assert memory.is_out_of_memory(error)
    assert not memory.is_device_lost(error)


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
    assert memory.is_device_lost(error)
    assert not memory.is_out_of_memory(error)


@pytest.mark.parametrize("error", [ValueError("not enough memory"), RuntimeError("shapes differ")])
def test_other_errors(error: Exception) -> None:
    """Other errors are neither."""
    assert not memory.is_out_of_memory(error)
    assert not memory.is_device_lost(error)


def test_on_a_cpu_there_is_nothing_to_free_or_to_wait_for() -> None:
    """Both calls are allowed on every device."""
    memory.free_cache(CPU)
    memory.synchronise(CPU)


def test_host_memory_goes_back_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a CPU engine frees is in the heap."""
    trimmed: list[str] = []
    monkeypatch.setattr(memory, "trim", lambda: trimmed.append("trimmed"))
    memory.free_cache(CPU)
    assert trimmed == ["trimmed"]
