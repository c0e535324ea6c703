"""How much of a GPU a process takes, by the driver: CUDA's context and kernels included."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pynvml

from service.telemetry import gpu_reading


class Watch:
    """Looks at one process on one card, again and again.

    Where the driver does not name processes (in most containers, on Windows), what the card's
    use has grown by stands for it: right as long as nothing else starts there meanwhile.
    """

    def __init__(self, handle: Any) -> None:
        self._handle = handle
        self._before = self._used()
        self._own = self._card = 0

    @property
    def most(self) -> int:
        """The most bytes that were seen; 0 where nothing tells."""
        return self._own or self._card

    @property
    def by(self) -> str:
        """Whose figure that is: the ``process``'s or the ``card``'s."""
        return "process" if self._own else "card" if self._card else ""

    def look(self, pid: int) -> None:
        """Take note of what the process takes now."""
        if self._handle is None:
            return
        with suppress(pynvml.NVMLError):
            for each in pynvml.nvmlDeviceGetComputeRunningProcesses(self._handle):
                if each.pid == pid and each.usedGpuMemory is not None:
                    self._own = max(self._own, int(each.usedGpuMemory))
        self._card = max(self._card, self._used() - self._before)

    def _used(self) -> int:
        if self._handle is None:
            return 0
        with suppress(pynvml.NVMLError):
            return int(pynvml.nvmlDeviceGetMemoryInfo(self._handle).used)
        return 0


@contextmanager
def watching(visible_devices: str) -> Iterator[Watch]:
    """Hand out a watch of the card that the service would use; without a driver it sees nothing."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        yield Watch(None)
        return
    try:
        try:
            handle = gpu_reading.find(visible_devices)
        except pynvml.NVMLError:
            handle = None
        yield Watch(handle)
    finally:
        pynvml.nvmlShutdown()
