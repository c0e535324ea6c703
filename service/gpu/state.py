"""What is known of one GPU, as its readings come and fail."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import pynvml
import structlog

from service.gpu.nvml import GpuReading, read
from service.gpu.xid import XidCounter

log = structlog.get_logger(__name__)

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
    """What a scrape shows of one GPU: the reading, and how reading goes."""

    up: bool | None = None
    """None where there never was a driver with this GPU."""
    reading: GpuReading | None = None
    uuid: str | None = None
    """Of the GPU last read; it stays when the GPU goes."""
    lost: bool = False
    succeeded_at: float | None = None
    """In seconds since 1970."""
    xids: Mapping[str, int] | None = None
    """Faults by number; None when the driver does not report any."""
    xid_at: float = 0.0


class WatchedGpu:
    """One GPU that is read again and again, by the thread of the sampler."""

    def __init__(self, name: str, now: float) -> None:
        self.faults = XidCounter()
        self.heard = now
        """When it was last read, by the sampler's clock."""
        self._name = name
        self._known = GpuState()
        self._failure = ""

    @property
    def state(self) -> GpuState:
        """What is known, however old the reading is."""
        return replace(self._known, xids=self.faults.counts, xid_at=self.faults.last_at)

    @property
    def name(self) -> str:
        """Index or UUID to find it by.

        Once it was read it goes by its UUID: an index is another GPU's when one before is gone.
        """
        return self._known.uuid or self._name

    def show(self, reading: GpuReading) -> None:
        """Take a reading for the latest one."""
        self._known = GpuState(
            up=True, reading=reading, uuid=reading.uuid, succeeded_at=time.time()
        )

    def read(self) -> None:
        """Read it; call with an open driver.

        Raises:
            pynvml.NVMLError: this GPU cannot be read, or no longer.

        """
        reading = read(self.name)
        if reading is None:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        if self._known.up is False:
            log.info("gpu_reading_resumed", gpu=reading.uuid)
        self._failure = ""
        self.show(reading)

    def fail(self, error: pynvml.NVMLError) -> None:
        """Note that there is no reading, and say so once."""
        reason, known = str(error), self._known
        if known.up is None and error.value in (*NO_GPU, pynvml.NVML_ERROR_NOT_FOUND):
            if reason != self._failure:
                log.info("gpu_not_found", gpu=self.name, reason=reason)
        else:
            # "Unknown" may be one bad moment. Said again by a driver opened anew it is what a
            # container gets whose access to the device was taken away.
            again = known.up is False and error.value == pynvml.NVML_ERROR_UNKNOWN
            lost = known.uuid is not None and (error.value in GONE or known.lost or again)
            self._known = replace(known, up=False, reading=None, lost=lost)
            if reason != self._failure:
                log.warning("gpu_reading_failed", gpu=self.name, reason=reason, lost=lost)
        self._failure = reason
