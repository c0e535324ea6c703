"""The GPU as the driver reports it: the real pynvml on a driver library made for the test."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from service.telemetry.gpu import GpuReading, GpuSampler
from service.telemetry.metrics import GpuCollector, Metrics

# Two GPUs; the second one cannot report its memory. FAKE_NVML=lost breaks every reading.
LIBRARY = r"""
#include <stdlib.h>
#include <string.h>
typedef struct { unsigned long long total, free, used; } memory;
static int lost(void) { const char *s = getenv("FAKE_NVML"); return s && !strcmp(s, "lost"); }
int nvmlInitWithFlags(unsigned f) { return 0; }
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int code) { return code == 15 ? "GPU is lost" : "Some error"; }
int nvmlDeviceGetCount_v2(unsigned *n) { *n = 2; return lost() ? 15 : 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned i, void **d) { *d = (void *)(long)(i + 1); return 0; }
int nvmlDeviceGetUUID(void *d, char *s, unsigned n) {
    strcpy(s, (long)d == 1 ? "GPU-aaaa-1111" : "GPU-bbbb-2222"); return 0; }
int nvmlDeviceGetHandleByUUID(const char *u, void **d) { *d = (void *)1; return 0; }
int nvmlDeviceGetName(void *d, char *s, unsigned n) {
    strcpy(s, (long)d == 1 ? "Some GPU" : "Shared GPU"); return 0; }
int nvmlDeviceGetMemoryInfo(void *d, memory *m) {
    if ((long)d == 2) return 3;
    m->total = 6ULL << 30; m->used = 2ULL << 30; m->free = 4ULL << 30; return 0; }
"""
PROGRAM = """
import dataclasses, json, sys
from service.telemetry.gpu import GpuSampler
sampler = GpuSampler(sys.argv[1])
sampler.start()
assert sampler.wait_for_reading(30)
print(json.dumps(sampler.reading and dataclasses.asdict(sampler.reading)))
sampler.stop()
"""
FIRST = {
    "uuid": "GPU-aaaa-1111",
    "name": "Some GPU",
    "memory_used": 2 * 2**30,
    "memory_total": 6 * 2**30,
}
SECOND = {"uuid": "GPU-bbbb-2222", "name": "Shared GPU", "memory_used": None, "memory_total": None}


@pytest.fixture(scope="module")
def library(tmp_path_factory) -> Path:
    """Build the driver library; return its folder."""
    folder: Path = tmp_path_factory.mktemp("nvml")
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("There is no gcc to build the test's driver library.")
    source = folder / "nvml.c"
    source.write_text(LIBRARY)
    target = folder / "libnvidia-ml.so.1"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", target, source], check=True)
    return folder


def sample(visible_devices: str, library: Path, **environment: str) -> tuple[object, str]:
    """Read in a process of its own, which finds that library; return the reading and the log."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, visible_devices],
        env={**os.environ, "LD_LIBRARY_PATH": str(library), **environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    *log, last = done.stdout.splitlines()
    return json.loads(last), "\n".join(log)


@pytest.mark.parametrize(
    ("visible_devices", "expected"),
    [
        ("0", FIRST),
        ("0,1", FIRST),
        ("1", SECOND),
        ("1,0", SECOND),
        ("GPU-bbbb", SECOND),
        ("GPU-aaaa-1111", FIRST),
        ("MIG-1234", FIRST),
        ("2", None),
        ("", None),
        ("-1", None),
        ("GPU-cccc", None),
    ],
)
def test_the_gpu_is_the_one_that_cuda_uses(library, visible_devices, expected):
    """By index, by UUID or its beginning; none where CUDA sees none."""
    reading, _ = sample(visible_devices, library)
    assert expected == reading


def test_a_gpu_that_stops_answering_is_logged_and_has_no_reading(library):
    """The last good figures would be a lie."""
    reading, log = sample("0", library, FAKE_NVML="lost")
    assert reading is None
    assert "gpu_reading_failed" in log


def test_without_a_driver_there_is_no_reading(tmp_path):
    """A service on a CPU starts all the same."""
    (tmp_path / "libnvidia-ml.so.1").write_text("this is no library")
    reading, log = sample("0", tmp_path)
    assert reading is None
    assert "gpu_not_found" in log


def exposed(reading: GpuReading | None) -> dict[str, float]:
    registry, sampler = CollectorRegistry(), GpuSampler("0")
    sampler.reading = reading
    registry.register(GpuCollector(sampler))
    return {s.name: s.value for family in registry.collect() for s in family.samples}


def test_a_service_without_a_gpu_has_no_gpu_series():
    """0 bytes of memory would be a figure; absence is the truth."""
    assert exposed(None) == {}


def test_a_figure_that_the_gpu_does_not_give_has_no_series():
    """Some GPUs share the host's memory and report none of their own."""
    reading = GpuReading(uuid="GPU-1", name="Some GPU", memory_used=None, memory_total=5)
    assert exposed(reading) == {"sd_gpu_memory_total_bytes": 5}


def test_the_series_name_the_gpu():
    """With several services on one host, each shows its own."""
    metrics, sampler = Metrics(), GpuSampler("0")
    metrics.watch_gpu(sampler)
    sampler.reading = GpuReading(uuid="GPU-1", name="Some GPU", memory_used=3, memory_total=5)
    labels = {"gpu": "GPU-1", "name": "Some GPU"}
    assert metrics.registry.get_sample_value("sd_gpu_memory_used_bytes", labels) == 3
