"""The GPU in use as its driver (NVML) reports it, read on a thread of its own."""

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import pynvml
import structlog

log = structlog.get_logger(__name__)

INTERVAL_SECONDS: Final = 5.0
"""Time between two readings; Prometheus commonly asks every 15 s."""

FRESH_INTERVALS: Final = 3
"""A reading older than so many intervals is no longer shown: the driver hangs."""

BACKOFF_SECONDS: Final = 30.0
"""Longest pause between two attempts to open the driver again."""

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
CLOCKS: Final = {"sm": pynvml.NVML_CLOCK_SM, "memory": pynvml.NVML_CLOCK_MEM}

NO_DRIVER: Final = (pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, pynvml.NVML_ERROR_DRIVER_NOT_LOADED)
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

GONE: Final = (
    pynvml.NVML_ERROR_UNINITIALIZED,
    pynvml.NVML_ERROR_NOT_FOUND,
    pynvml.NVML_ERROR_DRIVER_NOT_LOADED,
    pynvml.NVML_ERROR_GPU_IS_LOST,
    pynvml.NVML_ERROR_UNKNOWN,
)
"""What a GPU that was there answers when it is not. Unknown is what a container gets whose
access to the device was taken away."""

XIDS: Final = frozenset(
    (13, 31, 32, 38, 43, 45, 48, 61, 62, 63, 64, 68, 69, 74, 79, 92, 94, 95, 109, 110)
)
"""Faults that are counted by number; any other is ``other``, and its number is in the log."""

XIDS_AT_ONCE: Final = 100
"""Most faults taken in one reading: a broken GPU may report them faster than we read."""


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
    """Watts, as are limits."""
    power_limit: float | None = None
    energy: float | None = None
    """Joules since the driver was loaded."""
    clocks: Mapping[str, int] = field(default_factory=dict)
    """Hertz by domain."""
    throttled: Mapping[str, bool] = field(default_factory=dict)
    ecc_errors: Mapping[str, int] = field(default_factory=dict)
    """Since the driver was loaded."""


@dataclass(frozen=True, kw_only=True)
class GpuState:
    """What a scrape shows: the reading, and how reading goes."""

    up: bool | None
    """None where there never was a driver or a GPU."""
    reading: GpuReading | None
    uuid: str | None
    """Of the GPU last read; it stays when the GPU goes."""
    lost: bool
    succeeded_at: float | None
    """In seconds since 1970."""
    duration: float | None
    xids: Mapping[str, int] | None
    """Faults by number; None when the driver does not report any."""
    xid_at: float


class GpuSampler:
    """Reads the GPU every few seconds.

    A driver call can hang on a broken GPU. Here that stops only this thread: neither
    the event loop nor a scrape waits for it, and the reading expires.
    """

    def __init__(
        self,
        visible_devices: str,
        *,
        interval: float = INTERVAL_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._visible_devices = visible_devices
        self._interval = interval
        self._clock = clock
        self._stop = threading.Event()
        self._read = threading.Event()
        self._thread: threading.Thread | None = None
        self._reading: GpuReading | None = None
        self._up: bool | None = None
        self._uuid: str | None = None
        self._lost = False
        self._heard = clock()
        self._succeeded_at: float | None = None
        self._duration: float | None = None
        self._failure = ""
        self._faults = Faults()

    @property
    def reading(self) -> GpuReading | None:
        """The latest reading; None without a GPU and when the driver has hung since."""
        return self._reading if self._fresh else None

    @reading.setter
    def reading(self, reading: GpuReading | None) -> None:
        self._heard = self._clock()
        self._reading = reading

    @property
    def state(self) -> GpuState:
        """What is known now."""
        up = self._up
        if not self._fresh and (up or (self._thread is not None and not self._read.is_set())):
            up = False
        return GpuState(
            up=up,
            reading=self.reading,
            uuid=self._uuid,
            lost=self._lost,
            succeeded_at=self._succeeded_at,
            duration=self._duration,
            xids=self._faults.counts,
            xid_at=self._faults.last_at,
        )

    @property
    def _fresh(self) -> bool:
        return self._clock() - self._heard <= FRESH_INTERVALS * self._interval

    def start(self) -> None:
        """Begin to read."""
        self._heard = self._clock()
        self._thread = threading.Thread(target=self._run, name="gpu-sampler", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread, without waiting for a driver that hangs."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=1.0)
        self._thread = None
        self._reading, self._up = None, None

    def wait_for_reading(self, timeout: float | None = None) -> bool:
        """Block until the first try to read is over; return whether it is."""
        return self._read.wait(timeout)

    def _run(self) -> None:
        attempts = 0
        while not self._stop.is_set():
            try:
                with driver(), self._faults.watched(self._visible_devices):
                    while not self._stop.is_set():
                        self._sample()
                        attempts = 0
                        self._read.set()
                        self._stop.wait(self._interval)
            except pynvml.NVMLError as error:
                self._fail(error)
                if self._up is None and error.value in NO_DRIVER:
                    self._read.set()
                    return
            self._read.set()
            self._stop.wait(min(self._interval * 2**attempts, BACKOFF_SECONDS))
            attempts = min(attempts + 1, 10)

    def _sample(self) -> None:
        """Read once.

        Raises:
            pynvml.NVMLError: this GPU cannot be read, or no longer.

        """
        began = time.perf_counter()
        try:
            reading = read(self._visible_devices)
        finally:  # The fault that took the GPU away is reported after it is gone.
            self._faults.take()
        if reading is None:
            if self._uuid is not None:
                raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
            if not self._failure:
                log.info("gpu_not_found", reason="The driver has no such GPU.")
            self._failure = "not found"
            return
        self._duration = time.perf_counter() - began
        if self._up is False:
            log.info("gpu_reading_resumed", gpu=reading.uuid)
        self.reading = reading
        self._up, self._uuid, self._lost, self._failure = True, reading.uuid, False, ""
        self._succeeded_at = time.time()

    def _fail(self, error: pynvml.NVMLError) -> None:
        """Note that there is no reading, and say so once."""
        self._reading = None
        if self._up is None and error.value in NO_DRIVER:
            log.info("gpu_not_found", reason=str(error))
            return
        self._up = False
        self._lost = self._uuid is not None and error.value in GONE
        if str(error) != self._failure:
            log.warning("gpu_reading_failed", reason=str(error), lost=self._lost)
        self._failure = str(error)


class Faults:
    """Counts the faults (XID) that the driver reports.

    They come as events: a figure of the last one, as other exporters give it, cannot say
    when it was, nor that it was the second.
    """

    def __init__(self) -> None:
        self.counts: Mapping[str, int] | None = None
        self.last_at = 0.0
        self._events: Any = None

    @contextlib.contextmanager
    def watched(self, visible_devices: str) -> Iterator[None]:
        """Be told of faults while the driver is open; without, when it cannot."""
        try:
            handle = find(visible_devices)
            self._events = None if handle is None else pynvml.nvmlEventSetCreate()
            if self._events is not None:
                pynvml.nvmlDeviceRegisterEvents(
                    handle, pynvml.nvmlEventTypeXidCriticalError, self._events
                )
                self.counts = self.counts or {str(xid): 0 for xid in XIDS} | {"other": 0}
        except pynvml.NVMLError as error:
            self._close()
            log.info("gpu_faults_not_reported", reason=str(error))
        try:
            yield
        finally:
            self._close()

    def take(self) -> None:
        """Count what was reported since; return at once when nothing was."""
        counts = Counter(self.counts or {})
        for _ in range(XIDS_AT_ONCE if self._events is not None else 0):
            try:
                xid = int(pynvml.nvmlEventSetWait_v2(self._events, 1).eventData)
            except pynvml.NVMLError:  # Commonly the time limit; a lost GPU shows in the reading.
                break
            counts[str(xid) if xid in XIDS else "other"] += 1
            self.counts, self.last_at = dict(counts), time.time()
            log.warning("gpu_fault_reported", xid=xid)

    def _close(self) -> None:
        if self._events is not None:
            with contextlib.suppress(pynvml.NVMLError):
                pynvml.nvmlEventSetFree(self._events)
        self._events = None


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
    """Read the first GPU that ``CUDA_VISIBLE_DEVICES`` names; None when it names none.

    Raises:
        pynvml.NVMLError: the GPU does not answer.

    """
    handle = find(visible_devices)
    if handle is None:
        return None
    memory = _memory(handle)
    rates = _given("nvmlDeviceGetUtilizationRates", handle)
    return GpuReading(
        uuid=_text(_given("nvmlDeviceGetUUID", handle)),
        name=_text(_given("nvmlDeviceGetName", handle)),
        driver=_text(_given("nvmlSystemGetDriverVersion")),
        memory_used=None if memory is None else int(memory.used),
        memory_total=None if memory is None else int(memory.total),
        utilization=None if rates is None else rates.gpu / 100,
        memory_utilization=None if rates is None else rates.memory / 100,
        temperature=_temperature(handle),
        temperature_slowdown=_given(
            "nvmlDeviceGetTemperatureThreshold", handle, pynvml.NVML_TEMPERATURE_THRESHOLD_SLOWDOWN
        ),
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
            if (count := _given("nvmlDeviceGetTotalEccErrors", handle, kind, 0)) is not None
        },
    )


def find(visible_devices: str) -> Any:
    """Find the device; NVML itself ignores ``CUDA_VISIBLE_DEVICES``."""
    name = visible_devices.split(",", maxsplit=1)[0].strip()
    if not name or name.startswith("-"):  # Like CUDA: nothing after an invalid index counts.
        return None
    count = pynvml.nvmlDeviceGetCount()
    if name.isdecimal():
        return pynvml.nvmlDeviceGetHandleByIndex(int(name)) if int(name) < count else None
    if name.startswith("MIG-"):
        return pynvml.nvmlDeviceGetHandleByUUID(name)
    for index in range(count):
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        # CUDA takes the beginning of a UUID for the whole.
        if _text(_given("nvmlDeviceGetUUID", handle)).startswith(name):
            return handle
    return None


def _memory(handle: Any) -> Any:
    """Ask what every GPU with memory of its own can tell; here any failure is the GPU's."""
    try:
        return pynvml.nvmlDeviceGetMemoryInfo(handle)
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


def _text(value: str | bytes | None) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value or ""
