"""The GPU's series: all that is defined, and nothing that is not known."""

import dataclasses
import shutil
import subprocess
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

from service.gpu.collector import GpuCollector
from service.gpu.nvml import GpuReading
from service.gpu.sampler import GpuSampler
from service.gpu.state import GpuState
from service.gpu.xid import XIDS
from service.telemetry.definitions import GPU
from service.telemetry.disk import DiskCollector, DiskSampler
from service.telemetry.metrics import Metrics

READING = GpuReading(
    uuid="GPU-1",
    name="Some GPU",
    driver="999.99.01",
    memory_used=3,
    memory_total=5,
    utilization=0.5,
    memory_utilization=0.25,
    temperature=55,
    temperature_slowdown=95,
    power=80.5,
    power_limit=120.0,
    energy=1000.25,
    clocks={"sm": 1_500_000_000, "memory": 4_000_000_000},
    throttled={"hw_thermal": True, "sw_power_cap": False},
    ecc_errors={"corrected": 7, "uncorrected": 0},
)
FULL = GpuState(
    up=True,
    reading=READING,
    uuid="GPU-1",
    succeeded_at=1_800_000_000.5,
    xids={"79": 1, "other": 0},
    xid_at=1_799_999_999.5,
)


class Fixed(GpuSampler):
    """A sampler that knows what it was given."""

    def __init__(self, *states: GpuState) -> None:
        super().__init__("0")
        self._given, self.duration = states, 0.002

    @property
    def states(self) -> tuple[GpuState, ...]:
        return self._given


def registry(*states: GpuState) -> CollectorRegistry:
    made = CollectorRegistry()
    made.register(GpuCollector(Fixed(*states)))
    return made


def exposed(*states: GpuState) -> dict[str, float]:
    """Return the values by series, written as in a scrape but for the label of the first GPU."""
    lines = generate_latest(registry(*states)).decode().splitlines()
    shown = {}
    for line in lines:
        if not line.startswith("#"):
            series, value = line.replace('gpu="GPU-1"', "").rsplit(" ", maxsplit=1)
            for extra, right in ((",,", ","), (",}", "}"), ("{,", "{"), ("{}", "")):
                series = series.replace(extra, right)
            shown[series] = float(value)
    return shown


def test_a_full_reading_shows_every_family_as_it_is_defined():
    """None is forgotten and none made up; kind, help and labels are those of the table."""
    shown = {
        (family.name + ("_total" if family.type == "counter" else ""), family.type): (
            family.documentation,
            {tuple(sample.labels) for sample in family.samples},
        )
        for family in registry(FULL).collect()
    }
    defined = {(d.name, d.kind): (d.help, {d.labels}) for d in GPU}
    assert defined == shown


def test_the_figures_of_a_full_reading():
    """In base units, by what the labels say."""
    expected = {
        'sd_gpu_info{driver="999.99.01",name="Some GPU"}': 1,
        "sd_gpu_memory_used_bytes": 3,
        "sd_gpu_memory_total_bytes": 5,
        "sd_gpu_utilization_ratio": 0.5,
        "sd_gpu_memory_utilization_ratio": 0.25,
        "sd_gpu_temperature_celsius": 55,
        "sd_gpu_temperature_slowdown_celsius": 95,
        "sd_gpu_power_watts": 80.5,
        "sd_gpu_power_limit_watts": 120,
        "sd_gpu_energy_joules_total": 1000.25,
        'sd_gpu_clock_hertz{domain="sm"}': 1.5e9,
        'sd_gpu_clock_hertz{domain="memory"}': 4e9,
        'sd_gpu_throttled{reason="hw_thermal"}': 1,
        'sd_gpu_throttled{reason="sw_power_cap"}': 0,
        'sd_gpu_ecc_errors_total{kind="corrected"}': 7,
        'sd_gpu_ecc_errors_total{kind="uncorrected"}': 0,
        'sd_gpu_xid_errors_total{xid="79"}': 1,
        'sd_gpu_xid_errors_total{xid="other"}': 0,
        "sd_gpu_xid_last_timestamp_seconds": 1_799_999_999.5,
        "sd_gpu_lost": 0,
        "sd_gpu_collector_up": 1,
        "sd_gpu_collector_last_success_timestamp_seconds": 1_800_000_000.5,
        "sd_gpu_collector_duration_seconds": 0.002,
    }
    assert expected == exposed(FULL)


def test_a_service_without_a_gpu_has_no_gpu_series():
    """0 bytes of memory would be a figure; absence is the truth."""
    assert exposed(GpuState()) == {}


def test_a_figure_that_the_gpu_does_not_give_has_no_series():
    """The others stay; a family without a series is not named either."""
    least = GpuReading(uuid="GPU-1", name="Some GPU", memory_used=None, memory_total=5)
    state = dataclasses.replace(FULL, reading=least, xids=None)
    expected = {
        "sd_gpu_info",
        "sd_gpu_memory_total_bytes",
        "sd_gpu_lost",
        "sd_gpu_collector_up",
        "sd_gpu_collector_last_success_timestamp_seconds",
        "sd_gpu_collector_duration_seconds",
    }
    assert expected == {family.name for family in registry(state).collect()}


def test_a_lost_gpu_shows_that_it_is_lost_and_its_faults():
    """Of all else nothing is known."""
    lost = dataclasses.replace(FULL, up=False, reading=None, lost=True)
    shown = exposed(lost)
    assert (shown["sd_gpu_lost"], shown["sd_gpu_collector_up"]) == (1, 0)
    assert shown['sd_gpu_xid_errors_total{xid="79"}'] == 1
    assert not any("memory" in name or "celsius" in name for name in shown)


def test_a_driver_that_never_worked_shows_only_that():
    """There is no GPU to name, and no time of success."""
    assert exposed(GpuState(up=False)) == {"sd_gpu_collector_up": 0}


def test_the_number_of_series_is_bounded():
    """A reading has as many as it has, and faults not more than are listed."""
    state = dataclasses.replace(FULL, xids={str(xid): 0 for xid in XIDS} | {"other": 0})
    assert len(exposed(state)) == len(exposed(FULL)) - 2 + len(XIDS) + 1
    assert len(exposed(state)) < 60


SECOND = dataclasses.replace(READING, uuid="GPU-2", memory_used=4)


def test_each_gpu_has_its_series():
    """Those of the first are as they are without the second; how reading goes is said once."""
    second = dataclasses.replace(FULL, reading=SECOND, uuid="GPU-2")
    both, one = exposed(FULL, second), exposed(FULL)
    others = {name: value for name, value in both.items() if 'gpu="GPU-2"' in name}
    assert {name: both[name] for name in one} == one
    assert both.keys() == one.keys() | others.keys()
    assert others['sd_gpu_memory_used_bytes{gpu="GPU-2"}'] == 4
    assert len(others) == len(one) - 3


def test_one_gpu_that_is_lost_leaves_the_other():
    """Reading as a whole does not work: an alert must not wait for the last GPU to go."""
    lost = GpuState(up=False, uuid="GPU-2", lost=True, succeeded_at=1_700_000_000.0)
    both = exposed(FULL, lost)
    assert (both["sd_gpu_lost"], both['sd_gpu_lost{gpu="GPU-2"}']) == (0, 1)
    assert both["sd_gpu_memory_used_bytes"] == 3
    assert both["sd_gpu_collector_up"] == 0
    assert both["sd_gpu_collector_last_success_timestamp_seconds"] == 1_700_000_000


def test_a_gpu_that_is_not_there_takes_nothing_from_the_other():
    """It may be named and not be in the machine."""
    assert exposed(GpuState(), FULL) == exposed(FULL)


def test_a_gpu_that_is_named_twice_is_shown_once():
    """By its index and by its UUID, say: Prometheus refuses a scrape with a series twice."""
    assert exposed(FULL, FULL) == exposed(FULL)
    scraped = generate_latest(registry(FULL, FULL)).decode()
    assert scraped.count("sd_gpu_memory_used_bytes{") == 1


def test_a_name_is_registered_once():
    """A second collector of the GPU would double every series."""
    metrics = Metrics()
    metrics.watch(GpuCollector(GpuSampler("0")))
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        metrics.watch(GpuCollector(GpuSampler("0")))


@pytest.mark.usefixtures("card")
def test_a_scrape_with_a_gpu_is_as_prometheus_wants_it(tmp_path: Path):
    """``promtool check metrics`` has nothing to say; all of it from a driver to the text."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("There is no promtool to check the scrape with.")
    metrics = Metrics()
    gpu, disk = GpuSampler("0"), DiskSampler({"models": tmp_path})
    metrics.watch(GpuCollector(gpu))
    metrics.watch(DiskCollector(disk))
    gpu.start()
    disk.start()
    assert gpu.wait_for_reading(30)
    assert disk.wait_for_reading(30)
    scraped = generate_latest(metrics.registry)
    openmetrics = generate_openmetrics(metrics.registry)
    gpu.stop()
    disk.stop()
    for definition in GPU:
        assert f"\n# TYPE {definition.name} {definition.kind}\n" in scraped.decode()
    done = subprocess.run(
        [promtool, "check", "metrics"], input=scraped, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert openmetrics.endswith(b"# EOF\n")
