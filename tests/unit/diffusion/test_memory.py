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


@pytest.mark.skipif(memory.MALLOC_TRIM is None, reason="only glibc keeps holes in its heap")
def test_holes_in_the_heap_go_back_to_the_system() -> None:
    """Small blocks that stay keep the large ones around them no longer."""
    # Below glibc's smallest threshold for mappings of their own, so that all come from the heap.
    blocks = [bytearray(b"x") * 65536 for _ in range(2000)]
    kept = blocks[::100]
    full = memory.host_resident()
    del blocks
    memory.free_cache(CPU)

    assert full - memory.host_resident() > 100 * 2**20
    assert len(kept) == 20


def test_a_busy_process_is_tidied_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once in a while, however often it is asked; an idle one whenever it is asked."""
    trimmed: list[str] = []
    monkeypatch.setattr(memory, "trim_heap", lambda: trimmed.append("trimmed"))

    often = memory.Housekeeping(every_seconds=3600)
    often.tidy(idle=False)
    assert trimmed == []
    often.tidy(idle=True)
    assert len(trimmed) == 1
    now = memory.Housekeeping(every_seconds=0)
    now.tidy(idle=False)
    now.tidy(idle=False)
    assert len(trimmed) == 3
