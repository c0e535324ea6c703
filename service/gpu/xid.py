"""Faults of the GPU (XID), counted as the driver reports them."""

import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

import pynvml
import structlog

from service.gpu.nvml import NOT_GIVEN, find

log = structlog.get_logger(__name__)

# Of https://docs.nvidia.com/deploy/xid-errors those that an operator meets.
XIDS: Final = (
    # What runs on the GPU: commonly a program's fault.
    *(13, 31, 32, 38, 43, 45, 46, 69, 109, 110),
    *(48, 63, 64, 92, 94, 95, 136, 137, 140),  # Memory.
    *(61, 62, 119, 120, 121, 122, 123, 143, 154),  # Firmware and driver.
    *(68, 74, 79),  # Links; 79 is a GPU that fell off the bus.
)
"""Faults that are counted by number; any other is ``other``, and its number is in the log."""

AT_ONCE: Final = 100
"""Most faults taken between two readings: a broken GPU may report them without end."""


class XidCounter:
    """Counts the faults that the driver reports while it is open.

    They come as events: the number of the last fault, which is what the driver's figures
    give, says neither when it was nor that it was the second.
    """

    def __init__(self) -> None:
        self.counts: Mapping[str, int] | None = None
        """By number; None when the driver does not report any."""
        self.last_at = 0.0
        """In seconds since 1970; 0 for never."""
        self._events: Any = None
        self._refused = False

    @contextlib.contextmanager
    def watched(self, visible_devices: str) -> Iterator[None]:
        """Be told of faults, where the driver can; never fails."""
        try:
            self._register(find(visible_devices))
        except pynvml.NVMLError as error:
            self._close()
            if error.value in NOT_GIVEN and not self._refused:  # The rest shows in the reading.
                self._refused = True
                log.info("gpu_faults_not_reported", reason=str(error))
        try:
            yield
        finally:
            self._close()

    def wait(self, seconds: float) -> bool:
        """Wait for faults that long, and count them; False when none can be waited for."""
        until = time.monotonic() + seconds
        for _ in range(AT_ONCE):
            if self._events is None:
                return False
            # 1 and not 0 ms: what 0 means is not the same in every release of the driver.
            milliseconds = max(int(1000 * (until - time.monotonic())), 1)
            try:
                event = pynvml.nvmlEventSetWait_v2(self._events, milliseconds)
            except pynvml.NVMLError as error:  # A GPU that is gone shows in the reading.
                return bool(error.value == pynvml.NVML_ERROR_TIMEOUT)
            if event.eventType == pynvml.nvmlEventTypeXidCriticalError:
                self._count(int(event.eventData))
        return False

    def _count(self, xid: int) -> None:
        key, counts = str(xid) if xid in XIDS else "other", self.counts or {}
        # A new object each time: a scrape may be reading the old one.
        self.counts = {**counts, key: counts.get(key, 0) + 1}
        self.last_at = time.time()
        log.warning("gpu_fault_reported", xid=xid)

    def _register(self, handle: Any) -> None:
        if handle is None:
            return
        self._events = pynvml.nvmlEventSetCreate()
        kinds = pynvml.nvmlEventTypeXidCriticalError
        pynvml.nvmlDeviceRegisterEvents(handle, kinds, self._events)
        if self.counts is None:
            self.counts = {str(xid): 0 for xid in XIDS} | {"other": 0}

    def _close(self) -> None:
        if self._events is not None:
            with contextlib.suppress(pynvml.NVMLError):
                pynvml.nvmlEventSetFree(self._events)
        self._events = None
