"""What a service on a GPU must show, and how it is read."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from scripts.cards.measure import Measured, Order
from scripts.cards.suite import batches, parity
from scripts.cards.suite import service as served
from scripts.cards.suite.parts import Report, Task

HEALTH = {
    "status": "healthy",
    "gpu_available": True,
    "gpu_memory_used": "2.1 GB",
    "gpu_memory_total": "6.0 GB",
    "model_loaded": True,
}
METRICS = (
    "# TYPE sd_gpu_memory_used_bytes gauge\n"
    'sd_gpu_memory_used_bytes{gpu="GPU-1"} 2.1e+09\n'
    "# TYPE sd_gpu_clock_hertz gauge\n"
    'sd_gpu_clock_hertz{gpu="GPU-1",domain="sm"} 1.5e+09\n'
    "# TYPE sd_gpu_xid_errors_total counter\n"
    + "".join(f'sd_gpu_xid_errors_total{{gpu="GPU-1",xid="{xid}"}} 1\n' for xid in range(5))
    + "# TYPE sd_jobs gauge\nsd_jobs 1\n"
)


@pytest.fixture
def seen() -> dict[str, str]:
    """Return the figures of a healthy service."""
    return served.figures(HEALTH, METRICS)


def test_figures_are_named_as_people_read_them(seen):
    """Health first, then the GPU's series without the card's own name; many are summed up."""
    assert seen["health: gpu_memory_total"] == "6.0 GB"
    assert seen["sd_gpu_memory_used_bytes"] == "2.1e+09"
    assert seen["sd_gpu_clock_hertz (sm)"] == "1.5e+09"
    assert seen["sd_gpu_xid_errors_total"] == "5 series, sum 5"
    assert "sd_jobs" not in seen


def test_a_service_that_sees_its_gpu_is_not_blind(seen):
    """And one that does not is told, figure by figure."""
    assert served.blind(seen) == ""
    said = served.blind(
        {
            "health: gpu_available": "False",
            "health: gpu_memory_used": "0.0 GB",
            "health: gpu_memory_total": "6.0 GB",
        }
    )
    assert said == (
        "gpu_available is not true; gpu_memory_used is 0.0 GB; no sd_gpu_memory_used_bytes"
    )


def test_metrics_that_a_card_does_not_give_are_named(seen):
    """Those that it gives are not, whatever labels they have."""
    (note,) = served.absent(seen)
    assert "sd_gpu_power_watts" in note
    assert "sd_gpu_clock_hertz" not in note
    assert "sd_gpu_xid_errors_total" not in note


def test_the_table_has_every_figure_of_any_time():
    """A figure that is not there at one time is a dash."""
    assert served.table({"a": "1"}, {"a": "2", "b": "3"}, {"b": "4"}) == [
        served.HEAD,
        *(("a", "1", "2", "-"), ("b", "-", "3", "4")),
    ]


def task(folder: Path, **more: Any) -> Task:
    known = {"part": "batches", "model": "demo", "on_cpu": False, "vram": 6.0}
    return Task(**{**known, "seconds": 60.0, "folder": str(folder), **more})


def test_a_batch_is_compared_with_one_image_alone(monkeypatch, tmp_path):
    """Its step against theirs, image by image; the largest does not fit, and the others stay."""

    def measure(order: Order, settings: dict[str, str], *, seconds: float) -> Measured:
        assert seconds <= 60
        assert settings["MAX_CONCURRENT_REQUESTS"] == str(order.batch)
        if order.batch == 16:
            return Measured(failure="out of memory")
        step = 0.1 + 0.05 * order.batch
        return Measured(seconds=(2.0, 2.0), step_seconds=step, process=3 * 2**30)

    monkeypatch.setattr(batches, "measure", measure)
    told: list[Report] = []
    batches.run(task(tmp_path), told.append)
    assert [row[0] for row in told[-1].table[1:]] == ["1", "2", "4", "8"]
    assert [row[3] for row in told[-1].table[1:]] == ["1.00", "0.67", "0.50", "0.42"]
    assert told[-1].table[1][4:7] == ("2.000", "0.50", "3.00")
    assert told[-1].failure == "batch 16: out of memory"


def test_images_that_differ_from_the_plain_pipelines_are_a_failure(monkeypatch, tmp_path):
    """Those of a CPU are compared, and only told: another chip rounds otherwise."""

    def measure(order: Order, _settings: object, *, seconds: float) -> Measured:
        assert seconds <= 60
        level = 90 if "pipeline-GPU-float16" in order.folder else 99
        level = 50 if "CPU" in order.folder else level
        draw(Path(order.folder) / "1.png", level)
        return Measured(seconds=(1.0,))

    monkeypatch.setattr(parity, "measure", measure)
    told: list[Report] = []
    parity.run(task(tmp_path, part="parity"), told.append)
    assert [row[2:4] for row in told[-1].table[1:]] == [
        *(("100 %", "0"), ("0 %", "9"), ("0 %", "49"), ("0 %", "49"), ("0 %", "49"))
    ]
    assert told[-1].failure.startswith("engine, GPU, float16: fewer than 99.9% of the values")
    assert told[-1].failure.count("fewer than") == 1


def draw(path: Path, level: int) -> None:
    Image.new("RGB", (8, 8), (level, level, level)).save(path)
