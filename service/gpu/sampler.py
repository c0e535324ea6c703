"""The GPU in use, read again and again on a thread of its own."""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

import pynvml
import structlog

from service.gpu.nvml import GpuReading, driver, named, read
from service.gpu.xid import XidCounter

log = structlog.get_logger(__name__)

INTERVAL_SECONDS: Final = 5.0
"""Time between two readings; Prometheus commonly asks every 15 s."""

FRESH_INTERVALS: Final = 3
"""A reading older than so many intervals is no longer shown: the driver hangs."""

BACKOFF_SECONDS: Final = 30.0
"""Longest pause between two attempts to open the driver again."""

SLICE_SECONDS: Final = 0.5
"""Longest wait for a fault, and so for the thread to end."""

NO_GPU: Final = (
    pynvml.NVML_ERROR_LIBRARY_NOT_FOUND,
    pynvml.NVML_ERROR_DRIVER_NOT_LOADED,
    getattr(pynvml, "NVML_ERROR_GPU_NOT_FOUND", 28),  # Unknown to older releases of the binding.
)
"""Answers of a machine without a GPU, when none of them was seen before."""

GONE: Final = (
    *NO_GPU,
    pynvml.NVML_ERROR_NOT_FOUND,
    pynvml.NVML_ERROR_GPU_IS_LOST,
    pynvml.NVML_ERROR_RESET_REQUIRED,
)
"""Answers for a GPU that was there, and now needs an operator."""


@dataclass(frozen=True, kw_only=True)
class GpuState:
    """What a scrape shows: the reading, and how reading goes."""

    up: bool | None = None
    """None where there never was a driver with this GPU."""
    reading: GpuReading | None = None
    uuid: str | None = None
    """Of the GPU last read; it stays when the GPU goes."""
    lost: bool = False
    succeeded_at: float | None = None
    """In seconds since 1970."""
    duration: float | None = None
    xids: Mapping[str, int] | None = None
    """Faults by number; None when the driver does not report any."""
    xid_at: float = 0.0


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
        self._heard = clock()
        self._state = GpuState()
        self._failure = ""
        self._faults = XidCounter()
        self._stop = threading.Event()
        self._tried = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def reading(self) -> GpuReading | None:
        """The latest reading; None without a GPU, and when the driver hangs since."""
        return self._state.reading if self._fresh else None

    @reading.setter
    def reading(self, reading: GpuReading | None) -> None:
        self._heard = self._clock()
        self._state = replace(self._state, reading=reading)

    @property
    def state(self) -> GpuState:
        """What is known now."""
        state, up = self._state, self._state.up
        hangs_since_the_start = self._thread is not None and not self._tried.is_set()
        if not self._fresh and (up or hangs_since_the_start):
            up = False
        return replace(
            state,
            up=up,
            reading=state.reading if self._fresh else None,
            xids=self._faults.counts,
            xid_at=self._faults.last_at,
        )

    @property
    def _fresh(self) -> bool:
        return self._clock() - self._heard <= FRESH_INTERVALS * self._interval

    def start(self) -> None:
        """Begin to read; without a GPU to read, do nothing."""
        if not named(self._visible_devices):
            self._tried.set()
            return
        self._heard = self._clock()
        self._thread = threading.Thread(target=self._run, name="gpu-sampler", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread, without waiting for a driver that hangs."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=1.0)
        self._thread = None
        self._state = GpuState()

    def wait_for_reading(self, timeout: float | None = None) -> bool:
        """Block until the first try to read is over; return whether it is."""
        return self._tried.wait(timeout)

    def _run(self) -> None:
        try:
            pause = self._interval
            while not self._stop.is_set():
                succeeded_at = self._state.succeeded_at
                try:
                    self._sample()
                except pynvml.NVMLError as error:
                    self._fail(error)
                    if error.value == pynvml.NVML_ERROR_LIBRARY_NOT_FOUND:
                        return
                if self._state.succeeded_at != succeeded_at:  # It worked for a while.
                    pause = self._interval
                self._tried.set()
                self._stop.wait(pause)
                pause = min(2 * pause, max(BACKOFF_SECONDS, self._interval))
        finally:
            self._tried.set()

    def _sample(self) -> None:
        """Open the driver and read until told to stop.

        Raises:
            pynvml.NVMLError: this GPU cannot be read, or no longer.

        """
        with driver(), self._faults.watched(self._visible_devices):
            while not self._stop.is_set():
                try:
                    self._read_once()
                finally:
                    # A fault that takes the GPU away is reported when it is gone already.
                    self._faults.wait(0)
                self._tried.set()
                self._pause()

    def _read_once(self) -> None:
        began = time.perf_counter()
        reading = read(self._visible_devices)
        if reading is None:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        if self._state.up is False:
            log.info("gpu_reading_resumed", gpu=reading.uuid)
        self._heard, self._failure = self._clock(), ""
        self._state = GpuState(
            up=True,
            reading=reading,
            uuid=reading.uuid,
            succeeded_at=time.time(),
            duration=time.perf_counter() - began,
        )

    def _pause(self) -> None:
        """Let the interval pass, listening for faults meanwhile."""
        until = time.monotonic() + self._interval
        while not self._stop.is_set() and (left := until - time.monotonic()) > 0:
            if not self._faults.wait(min(left, SLICE_SECONDS)):
                self._stop.wait(left)

    def _fail(self, error: pynvml.NVMLError) -> None:
        """Note that there is no reading, and say so once."""
        reason, state = str(error), self._state
        if state.up is None and error.value in (*NO_GPU, pynvml.NVML_ERROR_NOT_FOUND):
            if reason != self._failure:
                log.info("gpu_not_found", reason=reason)
        else:
            # "Unknown" may be one bad moment. Said again by a driver opened anew it is what a
            # container gets whose access to the device was taken away.
            again = state.up is False and error.value == pynvml.NVML_ERROR_UNKNOWN
            lost = state.uuid is not None and (error.value in GONE or state.lost or again)
            self._state = replace(state, up=False, reading=None, lost=lost)
            if reason != self._failure:
                log.warning("gpu_reading_failed", reason=reason, lost=lost)
        self._failure = reason
