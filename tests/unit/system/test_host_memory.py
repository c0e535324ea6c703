import os
import resource
from pathlib import Path

import psutil
import pytest

from service.system import host_memory

UNLIMITED = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a /proc of our own, with nothing in it but folders; no limits apply."""
    folder = tmp_path / "proc"
    (folder / "self").mkdir(parents=True)
    monkeypatch.setattr(host_memory, "PROC", folder)
    monkeypatch.setattr(host_memory, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(resource, "getrlimit", lambda _: UNLIMITED)
    return folder


def test_resident() -> None:
    """The resident set is the process's own."""
    assert host_memory.resident() == pytest.approx(psutil.Process().memory_info().rss, rel=0.1)


@pytest.mark.parametrize("content", [None, "", "1", "many pages"])
def test_no_proc(proc: Path, content: str | None) -> None:
    """Where /proc does not tell, the resident set is 0 and nothing breaks."""
    if content is not None:
        (proc / "self/statm").write_text(content)

    assert host_memory.resident() == 0
    assert host_memory.peak() == 0
    assert host_memory.available() is None


def test_peak() -> None:
    """The peak is that since it was last reset."""
    taken = bytearray(64 * 2**20)
    high = host_memory.peak()
    del taken

    assert host_memory.reset_peak()
    assert host_memory.peak() < high - 32 * 2**20


def test_kernel_without_a_peak(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is said that nothing is watched."""
    monkeypatch.setattr(host_memory, "PROC", tmp_path / "nowhere")

    assert not host_memory.reset_peak()


def test_machine(proc: Path) -> None:
    """Without any limit it is what the machine has."""
    (proc / "meminfo").write_text("MemTotal:  9000 kB\nMemAvailable:  5000 kB\n")

    assert host_memory.available() == 5000 * 1024


def test_control_groups(proc: Path, tmp_path: Path) -> None:
    """The tightest group above the process decides; files that it can drop count as free."""
    (proc / "meminfo").write_text("MemAvailable:  5000 kB\n")
    (proc / "self/cgroup").write_text("4:memory:/old\n0::/outer/inner\n")
    inner = tmp_path / "cgroup/outer/inner"
    inner.mkdir(parents=True)
    (inner / "memory.max").write_text("max\n")
    (inner.parent / "memory.max").write_text("100000\n")
    (inner.parent / "memory.current").write_text("90000\n")
    (inner.parent / "memory.stat").write_text(
        "anon 50000\ninactive_file 20000\nactive_file 10000\n"
    )

    assert host_memory.available() == 40_000


def test_own_limit(proc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit of the address space counts what is mapped already."""
    (proc / "self/status").write_text("Name:\tx\nVmSize:\t   600 kB\n")
    limits = {resource.RLIMIT_AS: (1000 * 1024, 1000 * 1024)}
    monkeypatch.setattr(resource, "getrlimit", limits.__getitem__)
    monkeypatch.setattr(host_memory, "free_heap", lambda: 50 * 1024)

    assert host_memory.available() == 450 * 1024


def test_free_heap() -> None:
    """What was freed and is kept mapped for the next use counts as free."""
    blocks = [bytes(100_000) for _ in range(300)]
    held, before = blocks[1::2], host_memory.free_heap()
    del blocks

    assert host_memory.free_heap() - before > 10_000_000
    assert held


def test_pages() -> None:
    """Pages are those of this machine."""
    assert os.sysconf("SC_PAGE_SIZE") == host_memory.PAGE
