"""The GPUs in use, read again and again on one thread."""

import contextlib
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

import pynvml

from service.gpu.nvml import GpuReading, driver, names
from service.gpu.state import GpuState, WatchedGpu

INTERVAL_SECONDS: Final = 5.0
"""Time between two readings; Prometheus commonly asks every 15 s."""

FRESH_INTERVALS: Final = 3
"""A reading older than so many intervals is no longer shown: the driver hangs."""

BACKOFF_SECONDS: Final = 30.0
"""Longest pause between two attempts to open the driver again."""

SLICE_SECONDS: Final = 0.5
"""Longest wait for a fault, and so for the thread to end."""


class GpuSampler:
    """Reads every GPU that ``CUDA_VISIBLE_DEVICES`` names, every few seconds.

    A driver call can hang on a broken GPU. Here that stops only this thread: neither
    the event loop nor a scrape waits for it, and the readings expire. A GPU that fails
    leaves the others: they are read in the same pace, while the driver is opened anew for
    it from time to time.
    """

    def __init__(
        self,
        visible_devices: str,
        *,
        interval: float = INTERVAL_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._interval = interval
        self._clock = clock
        self._named = names(visible_devices)
        self._gpus = self._all()
        self._stop = threading.Event()
        self._tried = threading.Event()
        self._thread: threading.Thread | None = None
        self.duration: float | None = None
        """Seconds that the last reading of all GPUs took."""

    @property
    def readings(self) -> tuple[GpuReading, ...]:
        """The latest reading of each GPU; none of one that fails or hangs since."""
        found = (state.reading for state in self.states)
        return tuple({reading.uuid: reading for reading in found if reading}.values())

    @readings.setter
    def readings(self, readings: Sequence[GpuReading]) -> None:
        self._gpus = tuple(WatchedGpu(reading.uuid, self._clock()) for reading in readings)
        for gpu, reading in zip(self._gpus, readings, strict=True):
            gpu.show(reading)

    @property
    def states(self) -> tuple[GpuState, ...]:
        """What is known now of each GPU that is named, in their order."""
        return tuple(map(self._state, self._gpus))

    def _state(self, gpu: WatchedGpu) -> GpuState:
        state = gpu.state
        if self._clock() - gpu.heard <= FRESH_INTERVALS * self._interval:
            return state
        hangs_since_the_start = self._thread is not None and not self._tried.is_set()
        up = False if state.up or hangs_since_the_start else state.up
        return replace(state, up=up, reading=None)

    def start(self) -> None:
        """Begin to read; without a GPU to read, do nothing."""
        if not self._named:
            self._tried.set()
            return
        self._gpus = self._all()
        self._thread = threading.Thread(target=self._run, name="gpu-sampler", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread, without waiting for a driver that hangs."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=1.0)
        self._thread = None
        self._gpus = self._all()

    def wait_for_reading(self, timeout: float | None = None) -> bool:
        """Block until the first try to read is over; return whether it is."""
        return self._tried.wait(timeout)

    def _all(self) -> tuple[WatchedGpu, ...]:
        return tuple(WatchedGpu(name, self._clock()) for name in self._named)

    def _run(self) -> None:
        gpus, pause = self._gpus, self._interval
        try:
            while not self._stop.is_set():
                answering = all_answered = False
                try:
                    answering, all_answered = self._sample(gpus, pause)
                except pynvml.NVMLError as error:
                    for gpu in gpus:
                        gpu.fail(error)
                    if error.value == pynvml.NVML_ERROR_LIBRARY_NOT_FOUND:
                        return
                if all_answered:  # It worked for a while.
                    pause = self._interval
                if not answering:
                    self._tried.set()
                    self._stop.wait(pause)
                pause = min(2 * pause, max(BACKOFF_SECONDS, self._interval))
        finally:
            self._tried.set()

    def _sample(self, gpus: Sequence[WatchedGpu], most: float) -> tuple[bool, bool]:
        """Open the driver, and read until told to stop, none answers or one has not for long.

        Return whether any answers, and whether all did at a time. A GPU that does not answer is
        not asked again before the driver is opened anew, ``most`` seconds later.

        Raises:
            pynvml.NVMLError: the driver cannot be opened.

        """
        answering, all_answered, failed_at = list(gpus), False, math.inf
        with driver(), contextlib.ExitStack() as stack:
            for gpu in gpus:
                stack.enter_context(gpu.faults.watched(gpu.name))
            while not self._stop.is_set() and time.monotonic() - failed_at < most:
                began = time.perf_counter()
                answering = [gpu for gpu in answering if self._answers(gpu)]
                self.duration = time.perf_counter() - began
                if not answering:
                    break
                if len(answering) == len(gpus):
                    all_answered, most = True, self._interval
                else:
                    failed_at = min(failed_at, time.monotonic())
                self._tried.set()
                self._pause(answering)
        return bool(answering), all_answered

    def _answers(self, gpu: WatchedGpu) -> bool:
        try:
            gpu.read()
        except pynvml.NVMLError as error:
            gpu.fail(error)
            return False
        finally:
            # A fault that takes the GPU away is reported when it is gone already.
            gpu.faults.wait(0)
        gpu.heard = self._clock()
        return True

    def _pause(self, gpus: Sequence[WatchedGpu]) -> None:
        """Let the interval pass, listening for faults meanwhile."""
        until = time.monotonic() + self._interval
        while not self._stop.is_set() and (left := until - time.monotonic()) > 0:
            share = min(left, SLICE_SECONDS) / len(gpus)
            listened = [gpu.faults.wait(share) for gpu in gpus]
            if not any(listened):
                self._stop.wait(left)
