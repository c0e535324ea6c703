"""What the driver says: the real pynvml on a driver library made for the test."""

import dataclasses
import re
import threading
from typing import Any

import pynvml
import pytest

from service.gpu.nvml import THROTTLE_REASONS, GpuReading, find, names, read
from tests.nvml.driver import SOURCE

UUID = "GPU-00000000-0000-0000-0000-000000000000"
NOT_CLAIMED = [3, 13, 4, 2]
FULL = GpuReading(
    uuid=UUID,
    name="Stand-in GPU",
    driver="999.99.01",
    memory_used=2 * 2**30,
    memory_total=6 * 2**30,
    utilization=0.5,
    memory_utilization=0.2,
    temperature=55,
    temperature_slowdown=95,
    power=80.0,
    power_limit=120.0,
    energy=1000.0,
    clocks={"sm": 1_500_000_000, "memory": 4_000_000_000},
    throttled=dict.fromkeys(THROTTLE_REASONS, False),
    ecc_errors={"corrected": 0, "uncorrected": 0},
)
SENSORS: dict[str, dict[str, Any]] = {
    "name": {"name": ""},
    "driver": {"driver": ""},
    "utilization": {"utilization": None, "memory_utilization": None},
    "temperature": {"temperature": None},
    "temperature_slowdown": {"temperature_slowdown": None},
    "power": {"power": None},
    "power_limit": {"power_limit": None},
    "energy": {"energy": None},
    "clock_sm": {"clocks": {"memory": 4_000_000_000}},
    "clock_memory": {"clocks": {"sm": 1_500_000_000}},
    "throttle": {"throttled": {}},
    "ecc": {"ecc_errors": {}},
    "ecc_corrected": {"ecc_errors": {"uncorrected": 0}},
}
"""What a reading lacks when the driver does not answer one question."""


@pytest.mark.usefixtures("card")
def test_every_figure_is_in_base_units():
    """Shares, watts, joules and hertz: not percent, milliwatts, millijoules and MHz."""
    assert read("0") == FULL


@pytest.mark.parametrize("code", [*NOT_CLAIMED, 999, 14, 10])
@pytest.mark.parametrize("sensor", SENSORS)
def test_a_sensor_that_is_missing_or_fails_leaves_the_others(card, sensor, code):
    """Each figure stands for itself, and none becomes 0."""
    card.set(errors=f"{sensor}:{code}")
    assert read("0") == dataclasses.replace(FULL, **SENSORS[sensor])


@pytest.mark.parametrize("code", NOT_CLAIMED)
def test_a_gpu_without_memory_of_its_own_has_a_reading(card, code):
    """Some GPUs share the host's memory and report none."""
    card.set(errors=f"memory:{code}")
    assert read("0") == dataclasses.replace(FULL, memory_used=None, memory_total=None)


@pytest.mark.parametrize(
    ("figures", "code"),
    [
        ({"lost": 1}, 15),
        ({"errors": "memory:999"}, 999),
        ({"errors": "uuid:999"}, 999),
        ({"errors": "power:15"}, 15),
        ({"errors": "power:1"}, 1),
        ({"errors": "count:999"}, 999),
    ],
)
def test_a_gpu_that_does_not_answer_has_no_reading(card, figures, code):
    """What every GPU knows is not known, or the driver says that the GPU is gone."""
    card.set(**figures)
    with pytest.raises(pynvml.NVMLError) as raised:
        read("0")
    assert code == raised.value.value


@pytest.mark.parametrize("code", NOT_CLAIMED)
def test_an_older_driver_is_asked_by_the_older_names(card, code):
    """Temperature and throttling have been renamed."""
    card.set(errors=f"temperature_new:{code},throttle_new:{code}", throttle="0x40")
    reading = read("0")
    assert reading is not None
    assert (reading.temperature, reading.throttled["hw_thermal"]) == (55, True)


@pytest.mark.usefixtures("card")
def test_an_older_binding_is_asked_by_the_older_names(monkeypatch):
    """A call that pynvml does not have is one that the driver does not have."""
    for name in (
        "nvmlDeviceGetTemperatureV",
        "nvmlDeviceGetCurrentClocksEventReasons",
        "nvmlDeviceGetSupportedClocksEventReasons",
    ):
        monkeypatch.delattr(pynvml, name)
    assert read("0") == FULL


@pytest.mark.parametrize(("reason", "bit"), THROTTLE_REASONS.items())
def test_each_reason_to_throttle_is_told_apart(card, reason, bit):
    """One is 1, the others are 0."""
    card.set(throttle=bit)
    reading = read("0")
    assert reading is not None
    assert reading.throttled == dict.fromkeys(THROTTLE_REASONS, False) | {reason: True}


@pytest.mark.parametrize("idle", [0x1, 0x2, 0x100, 0x103])
def test_a_gpu_that_idles_or_was_told_its_clocks_is_not_throttled(card, idle):
    """Low clocks without work are no fault."""
    card.set(throttle=idle)
    reading = read("0")
    assert reading is not None
    assert not any(reading.throttled.values())


def test_a_reason_that_the_gpu_cannot_tell_is_absent(card):
    """A 0 would say that it was looked at."""
    card.set(throttle_known=0x44)
    reading = read("0")
    assert reading is not None
    assert reading.throttled == {"sw_power_cap": False, "hw_thermal": False}


def test_all_reasons_are_shown_when_the_driver_does_not_say_which_it_knows(card):
    """Drivers without that call answer the other one."""
    card.set(unsupported="throttle_known")
    assert read("0") == FULL


def test_a_threshold_of_0_degrees_is_none(card):
    """Every GPU would be above it."""
    card.set(temperature_slowdown=0)
    assert read("0") == dataclasses.replace(FULL, temperature_slowdown=None)


@pytest.mark.parametrize(
    ("visible_devices", "expected"),
    [
        ("0", "First"),
        ("0,1", "First"),
        (" 1", "Second"),
        ("1,0", "Second"),
        ("GPU-bbbb", "Second"),
        ("GPU-aaaa-1111", "First"),
        ("MIG-1234", "First"),
        ("2", None),
        ("", None),
        ("-1", None),
        ("GPU-cccc", None),
    ],
)
def test_the_gpu_is_the_one_that_cuda_uses(card, visible_devices, expected):
    """By index, by UUID or its beginning; none where CUDA sees none."""
    card.set(
        gpus=2,
        **{"0.uuid": "GPU-aaaa-1111", "1.uuid": "GPU-bbbb-2222"},
        **{"0.name": "First", "1.name": "Second"},
    )
    reading = read(visible_devices)
    assert expected == (reading and reading.name)


@pytest.mark.parametrize(
    ("visible_devices", "expected"),
    [
        ("0", ("0",)),
        (" 0 , GPU-aaaa,MIG-1", ("0", "GPU-aaaa", "MIG-1")),
        ("1,0,1", ("1", "0")),
        ("0,-1,1", ("0",)),
        ("0,,1", ("0",)),
        ("-1", ()),
        ("", ()),
    ],
)
def test_the_gpus_are_those_before_an_invalid_one(visible_devices, expected):
    """As CUDA reads the list; one that is named twice is one GPU."""
    assert names(visible_devices) == expected


def test_a_gpu_is_found_by_its_uuid_next_to_one_that_is_lost(card):
    """The lost one says nothing, not even that it is not the one."""
    card.set(gpus=2, **{"0.lost": 1})
    second = UUID[:-1] + "1"
    reading = read(second)
    assert reading is not None
    assert reading.uuid == second
    with pytest.raises(pynvml.NVMLError, match="lost"):
        read(UUID)


def test_without_a_device_named_the_driver_is_not_asked(monkeypatch):
    """There may be none."""
    monkeypatch.setattr(pynvml, "nvmlLib", None)
    assert find("") is None


def test_a_driver_that_hangs_goes_on_when_it_no_longer_does(card):
    """The stand-in looks at its file while it hangs, and hangs no longer than it says."""
    card.set(hang=30)
    readings: list[GpuReading | None] = []
    thread = threading.Thread(target=lambda: readings.append(read("0")))
    thread.start()
    assert not readings
    card.set(hang=None)
    thread.join(timeout=25)
    assert readings == [FULL]


def test_every_key_of_the_stand_in_is_described():
    """Its comment is all the documentation there is."""
    comment, code = SOURCE.read_text().split("*/", maxsplit=1)
    asked = set(re.findall(r'\b(?:text|number|figure|code|code_of)\([^"]*?"([a-z_]+)"', code))
    assert {"lost", "hang", "power", "memory", "init"} <= asked
    assert {key for key in asked if not re.search(rf"\b{key}\b", comment)} == set()
