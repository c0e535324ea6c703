"""Space on the volumes: read aside, shown at a scrape, absent where it cannot be read."""

import os
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from service.telemetry.definitions import DISK
from service.telemetry.disk import DiskCollector, DiskSampler, existing
from service.telemetry.metrics import Metrics

FIGURES = SimpleNamespace(f_bavail=10, f_bfree=99, f_blocks=1000, f_frsize=4096, f_bsize=1)


def shown(sampler: DiskSampler) -> dict[tuple[str, str], float]:
    registry = CollectorRegistry()
    registry.register(DiskCollector(sampler))
    return {
        (sample.name, sample.labels["volume"]): sample.value
        for family in registry.collect()
        for sample in family.samples
    }


@pytest.fixture
def begun():
    """Start samplers, which end with the test."""
    samplers = []

    def begin(sampler: DiskSampler) -> DiskSampler:
        samplers.append(sampler)
        sampler.start()
        return sampler

    yield begin
    for sampler in samplers:
        sampler.stop()


def test_the_space_is_what_this_user_may_still_take(begun, monkeypatch, tmp_path):
    """Blocks kept back for root are free to nobody else."""
    monkeypatch.setattr(os, "statvfs", lambda _: FIGURES)
    sampler = begun(DiskSampler({"models": tmp_path, "results": tmp_path}))
    assert sampler.wait_for_reading(30)
    expected = {
        ("sd_disk_free_bytes", "models"): 40_960,
        ("sd_disk_free_bytes", "results"): 40_960,
        ("sd_disk_size_bytes", "models"): 4_096_000,
        ("sd_disk_size_bytes", "results"): 4_096_000,
    }
    assert expected == shown(sampler)


def test_every_family_is_as_it_is_defined(begun, tmp_path):
    """Names, kinds, help and labels are those of the table."""
    sampler = begun(DiskSampler({"models": tmp_path}))
    assert sampler.wait_for_reading(30)
    families = {
        (family.name, family.type): (family.documentation, tuple(family.samples[0].labels))
        for family in DiskCollector(sampler).collect()
    }
    assert {(d.name, d.kind): (d.help, d.labels) for d in DISK} == families


def test_a_name_is_registered_once(tmp_path):
    """A second collector of the disks would double every series."""
    metrics, collector = Metrics(), DiskCollector(DiskSampler({"models": tmp_path}))
    metrics.watch(collector)
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        metrics.watch(DiskCollector(DiskSampler({})))


def test_a_folder_that_does_not_exist_yet_is_where_it_will_be_made(tmp_path, monkeypatch):
    """The nearest folder above it decides on which file system that is."""
    there = tmp_path / "there"
    there.mkdir()
    monkeypatch.chdir(there)
    assert existing(there / "not" / "yet") == there
    assert existing(there) == there
    assert existing(Path("models")) == there
    assert existing(Path("/nowhere/at/all")) == Path("/")


def test_a_folder_that_may_not_be_looked_into_is_measured_from_above(monkeypatch):
    """Whoever may not read a volume still has its file system."""
    refused = PermissionError(13, "Permission denied")

    real = Path.stat

    def stat(path: Path, *, follow_symlinks: bool = True) -> os.stat_result:
        if str(path).startswith("/closed/"):
            raise refused
        there = Path("/") if path == Path("/closed") else path
        return real(there, follow_symlinks=follow_symlinks)

    monkeypatch.setattr(Path, "stat", stat)
    assert existing(Path("/closed/models")) == Path("/closed")


def test_a_volume_that_cannot_be_read_is_absent_until_it_can(monkeypatch, tmp_path):
    """The others stay; it is logged once, and again when it breaks again."""
    broken = {tmp_path / "models"}
    for volume in ("models", "results"):
        (tmp_path / volume).mkdir()

    def statvfs(path: Path) -> SimpleNamespace:
        if path in broken:
            raise OSError(5, "Input/output error")
        return FIGURES

    monkeypatch.setattr(os, "statvfs", statvfs)
    sampler = DiskSampler({name: tmp_path / name for name in ("models", "results")})
    with capture_logs() as lines:
        for volume in ("models", "models", "results"):
            sampler.sample(volume)
        assert set(sampler.spaces) == {"results"}
        assert [line["volume"] for line in lines] == ["models"]
        broken.clear()
        sampler.sample("models")
        assert set(sampler.spaces) == {"models", "results"}
        broken.add(tmp_path / "models")
        sampler.sample("models")
    assert set(sampler.spaces) == {"results"}
    assert [line["volume"] for line in lines] == ["models", "models"]


def test_a_file_system_that_hangs_expires_and_holds_up_no_other(begun, monkeypatch, tmp_path):
    """A server of network storage that is gone keeps one thread, and nothing else."""
    now, release, entered = [0.0], threading.Event(), threading.Event()
    for volume in ("models", "results"):
        (tmp_path / volume).mkdir()

    def statvfs(path: Path) -> SimpleNamespace:
        if path == tmp_path / "results" and now[0]:
            entered.set()
            assert release.wait(30)
        return FIGURES

    monkeypatch.setattr(os, "statvfs", statvfs)
    volumes = {name: tmp_path / name for name in ("models", "results")}
    sampler = begun(DiskSampler(volumes, interval=0.01, clock=lambda: now[0]))
    assert sampler.wait_for_reading(30)
    assert set(sampler.spaces) == {"models", "results"}
    now[0] = 0.001
    assert entered.wait(30)
    now[0] = 100.0
    for _ in range(2):  # The first one may have begun before that time.
        sampler._tried["models"].clear()
        assert sampler._tried["models"].wait(30)
    assert set(sampler.spaces) == {"models"}
    assert {volume for _, volume in shown(sampler)} == {"models"}
    release.set()


def test_without_a_volume_that_can_be_read_there_is_no_series():
    """A family without a series is not named either."""
    assert list(DiskCollector(DiskSampler({})).collect()) == []


def test_a_sampler_that_was_stopped_knows_nothing(tmp_path):
    """Nor does it leave a thread."""
    sampler = DiskSampler({"models": tmp_path})
    sampler.start()
    assert sampler.wait_for_reading(30)
    sampler.stop()
    assert sampler.spaces == {}
    assert not any(thread.name.startswith("disk-") for thread in threading.enumerate())
