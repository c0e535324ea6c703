"""Memory and name of the GPU in use, read from the driver (NVML) on a thread of its own."""

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import pynvml
import structlog

log = structlog.get_logger(__name__)

INTERVAL_SECONDS: Final = 5.0
"""Time between two readings; Prometheus commonly asks every 15 s."""


@dataclass(frozen=True, kw_only=True)
class GpuReading:
    """What the driver said; None is a figure that this GPU does not give."""

    uuid: str
    name: str
    memory_used: int | None
    """Bytes, by everything that runs on the GPU."""
    memory_total: int | None


class GpuSampler:
    """Reads the GPU every few seconds.

    A driver call can hang on a broken GPU. Here that stops only this thread: neither
    the event loop nor a scrape waits for it.
    """

    def __init__(self, visible_devices: str, *, interval: float = INTERVAL_SECONDS) -> None:
        self.reading: GpuReading | None = None
        """The latest reading; None without a GPU."""
        self._visible_devices = visible_devices
        self._interval = interval
        self._stop = threading.Event()
        self._read = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to read."""
        self._thread = threading.Thread(target=self._run, name="gpu-sampler", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread, without waiting for a driver that hangs."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=1.0)
        self.reading = None

    def wait_for_reading(self, timeout: float | None = None) -> bool:
        """Block until the first try to read is over; return whether it is."""
        return self._read.wait(timeout)

    def _run(self) -> None:
        try:
            with driver():
                failure = ""
                while not self._stop.is_set():
                    try:
                        self.reading, failure = read(self._visible_devices), ""
                    except pynvml.NVMLError as error:  # For example: the GPU fell off the bus.
                        self.reading = None
                        if str(error) != failure:
                            log.warning("gpu_reading_failed", reason=str(error))
                        failure = str(error)
                    self._read.set()
                    self._stop.wait(self._interval)
        except pynvml.NVMLError as error:
            log.info("gpu_not_found", reason=str(error))
        finally:
            self._read.set()


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
        pynvml.nvmlShutdown()


def read(visible_devices: str) -> GpuReading | None:
    """Read the first GPU that ``CUDA_VISIBLE_DEVICES`` names; None when it names none."""
    handle = _handle(visible_devices)
    if handle is None:
        return None
    memory = _given(pynvml.nvmlDeviceGetMemoryInfo, handle)
    return GpuReading(
        uuid=_text(_given(pynvml.nvmlDeviceGetUUID, handle)),
        name=_text(_given(pynvml.nvmlDeviceGetName, handle)),
        memory_used=None if memory is None else int(memory.used),
        memory_total=None if memory is None else int(memory.total),
    )


def _handle(visible_devices: str) -> Any:
    """Find the device; NVML itself ignores ``CUDA_VISIBLE_DEVICES``."""
    name = visible_devices.split(",", maxsplit=1)[0].strip()
    count = pynvml.nvmlDeviceGetCount()
    if name.isdecimal():
        return pynvml.nvmlDeviceGetHandleByIndex(int(name)) if int(name) < count else None
    if not name or name.startswith("-"):  # Like CUDA: nothing after an invalid index counts.
        return None
    if name.startswith("MIG-"):
        return pynvml.nvmlDeviceGetHandleByUUID(name)
    for index in range(count):
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        # CUDA takes the beginning of a UUID for the whole.
        if _text(_given(pynvml.nvmlDeviceGetUUID, handle)).startswith(name):
            return handle
    return None


def _given(ask: Any, handle: Any) -> Any:
    """Return what the driver says, or None where this GPU or driver has no such figure."""
    try:
        return ask(handle)
    except (
        pynvml.NVMLError_NotSupported,
        pynvml.NVMLError_FunctionNotFound,
        pynvml.NVMLError_NoPermission,
    ):
        return None


def _text(value: str | bytes | None) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value or ""
