"""What the driver (NVML) says about one GPU."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any, Final

import pynvml

THROTTLE_REASONS: Final = {
    "sw_power_cap": 0x4,
    "hw_slowdown": 0x8,
    "sync_boost": 0x10,
    "sw_thermal": 0x20,
    "hw_thermal": 0x40,
    "power_brake": 0x80,
}
"""What holds clocks down (``nvmlClocksEventReasons``); idling and chosen clocks do not count."""

ECC_KINDS: Final = {
    "corrected": pynvml.NVML_MEMORY_ERROR_TYPE_CORRECTED,
    "uncorrected": pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED,
}
SLOWDOWN: Final = pynvml.NVML_TEMPERATURE_THRESHOLD_SLOWDOWN
VOLATILE: Final = pynvml.NVML_VOLATILE_ECC
"""Memory errors since the driver was loaded."""

CLOCKS: Final = {"sm": pynvml.NVML_CLOCK_SM, "memory": pynvml.NVML_CLOCK_MEM}

NOT_GIVEN: Final = (
    pynvml.NVML_ERROR_NOT_SUPPORTED,
    pynvml.NVML_ERROR_FUNCTION_NOT_FOUND,
    pynvml.NVML_ERROR_NO_PERMISSION,
    pynvml.NVML_ERROR_INVALID_ARGUMENT,
)
"""This GPU or this driver has no such figure."""

BROKEN: Final = (
    pynvml.NVML_ERROR_UNINITIALIZED,
    pynvml.NVML_ERROR_DRIVER_NOT_LOADED,
    pynvml.NVML_ERROR_GPU_IS_LOST,
    pynvml.NVML_ERROR_RESET_REQUIRED,
)
"""Not one sensor failed but all: there is no reading."""


@dataclass(frozen=True, kw_only=True)
class GpuReading:
    """What the driver said, in base units; None is a figure that this GPU does not give."""

    uuid: str
    name: str
    driver: str = ""
    memory_used: int | None
    """Bytes, by everything that runs on the GPU."""
    memory_total: int | None
    utilization: float | None = None
    """Share of the last sample period (up to 1 s) in which a kernel ran."""
    memory_utilization: float | None = None
    temperature: int | None = None
    temperature_slowdown: int | None = None
    power: float | None = None
    """Watts drawn now."""
    power_limit: float | None = None
    energy: float | None = None
    """Joules since the driver was loaded."""
    clocks: Mapping[str, int] = field(default_factory=dict)
    """Hertz by domain."""
    throttled: Mapping[str, bool] = field(default_factory=dict)
    ecc_errors: Mapping[str, int] = field(default_factory=dict)
    """Since the driver was loaded."""


@contextlib.contextmanager
def driver() -> Iterator[None]:
    """Hold the driver's library open.

    Raises:
        pynvml.NVMLError: there is no driver (found out in about 50 microseconds).

    """
    pynvml.nvmlInit()
    try:
        yield
    finally:
        with contextlib.suppress(pynvml.NVMLError):  # A driver that went away is closed.
            pynvml.nvmlShutdown()


def read(visible_devices: str) -> GpuReading | None:
    """Read the first GPU of a list as ``CUDA_VISIBLE_DEVICES`` has it; None when it names none.

    Raises:
        pynvml.NVMLError: the GPU does not answer.

    """
    handle = find(visible_devices)
    if handle is None:
        return None
    memory = _needed("nvmlDeviceGetMemoryInfo", handle)
    rates = _given("nvmlDeviceGetUtilizationRates", handle)
    return GpuReading(
        uuid=text(_needed("nvmlDeviceGetUUID", handle)),
        name=text(_given("nvmlDeviceGetName", handle)),
        driver=text(_given("nvmlSystemGetDriverVersion")),
        memory_used=None if memory is None else int(memory.used),
        memory_total=None if memory is None else int(memory.total),
        utilization=None if rates is None else rates.gpu / 100,
        memory_utilization=None if rates is None else rates.memory / 100,
        temperature=_temperature(handle),
        # 0 degrees would be no threshold; newer architectures move it to another interface.
        temperature_slowdown=_given("nvmlDeviceGetTemperatureThreshold", handle, SLOWDOWN) or None,
        power=_thousandths(_given("nvmlDeviceGetPowerUsage", handle)),
        power_limit=_thousandths(_given("nvmlDeviceGetEnforcedPowerLimit", handle)),
        energy=_thousandths(_given("nvmlDeviceGetTotalEnergyConsumption", handle)),
        clocks={
            name: megahertz * 1_000_000
            for name, domain in CLOCKS.items()
            if (megahertz := _given("nvmlDeviceGetClockInfo", handle, domain)) is not None
        },
        throttled=_throttled(handle),
        ecc_errors={
            name: count
            for name, kind in ECC_KINDS.items()
            if (count := _given("nvmlDeviceGetTotalEccErrors", handle, kind, VOLATILE)) is not None
        },
    )


def names(visible_devices: str) -> tuple[str, ...]:
    """Return the index or UUID of each GPU, once; like CUDA, none after an invalid index."""
    given = (name.strip() for name in visible_devices.split(","))
    return tuple(dict.fromkeys(takewhile(lambda name: name and not name.startswith("-"), given)))


def named(visible_devices: str) -> str:
    """Return the index or UUID of the first GPU; empty when there is none."""
    return next(iter(names(visible_devices)), "")


def find(visible_devices: str) -> Any:
    """Find the first device of the list; NVML itself ignores ``CUDA_VISIBLE_DEVICES``."""
    name = named(visible_devices)
    if not name:
        return None
    count = pynvml.nvmlDeviceGetCount()
    if name.isdecimal():
        return pynvml.nvmlDeviceGetHandleByIndex(int(name)) if int(name) < count else None
    if name.startswith("MIG-"):
        return pynvml.nvmlDeviceGetHandleByUUID(name)
    unknown: pynvml.NVMLError | None = None
    for index in range(count):
        try:
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            # CUDA takes the beginning of a UUID for the whole.
            if text(_given("nvmlDeviceGetUUID", handle)).startswith(name):
                return handle
        except pynvml.NVMLError as error:  # A GPU that is lost hides none of the others.
            unknown = error
    if unknown is not None:
        raise unknown
    return None


def _needed(name: str, handle: Any) -> Any:
    """Ask what every working GPU answers, if only that it has no such figure.

    Raises:
        pynvml.NVMLError: it did not; then it is the GPU that fails, and not a sensor.

    """
    try:
        return getattr(pynvml, name)(handle)
    except pynvml.NVMLError as error:
        if error.value in NOT_GIVEN:
            return None
        raise


def _temperature(handle: Any) -> int | None:
    """Ask by the new name and, of an older driver, by the old one."""
    sensor = pynvml.NVML_TEMPERATURE_GPU
    degrees = _given("nvmlDeviceGetTemperatureV", handle, sensor)
    if degrees is None:
        degrees = _given("nvmlDeviceGetTemperature", handle, sensor)
    return None if degrees is None else int(degrees)


def _throttled(handle: Any) -> dict[str, bool]:
    """Return each reason that this GPU knows; by the old name on drivers before 535."""
    for name in ("ClocksEventReasons", "ClocksThrottleReasons"):
        now = _given(f"nvmlDeviceGetCurrent{name}", handle)
        if now is not None:
            known = _given(f"nvmlDeviceGetSupported{name}", handle)
            mask = sum(THROTTLE_REASONS.values()) if known is None else known | now
            return {key: bool(now & bit) for key, bit in THROTTLE_REASONS.items() if mask & bit}
    return {}


def _given(name: str, *of: Any) -> Any:
    """Return what the driver says, or None where this GPU or driver has no such figure.

    A single sensor that fails in whatever way leaves the others standing.
    """
    ask = getattr(pynvml, name, None)  # Older releases of the binding lack newer calls.
    if ask is None:
        return None
    try:
        return ask(*of)
    except pynvml.NVMLError as error:
        if error.value in BROKEN:
            raise
        return None


def _thousandths(value: int | None) -> float | None:
    return None if value is None else value / 1000


def text(value: str | bytes | None) -> str:
    """Return a text of the driver's; older releases of the binding give bytes."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value or ""
