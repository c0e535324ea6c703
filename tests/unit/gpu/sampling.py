"""Readings of the GPUs one after another, on the thread of the test."""

import threading
from collections.abc import Callable

from service.gpu.sampler import GpuSampler
from service.gpu.state import GpuState

UUID = "GPU-00000000-0000-0000-0000-000000000000"


class Pauses(threading.Event):
    """Waits that take no time; their lengths are kept."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self.seconds.append(timeout)
        return self.is_set()


class Tries(threading.Event):
    """Keeps what is known after each try to read, and makes something happen before the next."""

    def __init__(self, sampler: GpuSampler, steps: tuple[Callable[[], object], ...]) -> None:
        super().__init__()
        self.states: list[tuple[GpuState, ...]] = []
        self._sampler = sampler
        self._steps = list(steps)

    def set(self) -> None:
        super().set()
        if self._sampler._stop.is_set():
            return
        self.states.append(self._sampler.states)
        if self._steps:
            self._steps.pop(0)()
        else:
            self._sampler._stop.set()


def nothing() -> None:
    """Let the next try be like the last one."""


def of_all(sampler: GpuSampler, *steps: Callable[[], object]) -> list[tuple[GpuState, ...]]:
    """Read once, and once more after each step; all on this thread."""
    tries = Tries(sampler, steps)
    sampler._tried, sampler._stop = tries, Pauses()
    sampler._run()
    return tries.states


def states(sampler: GpuSampler, *steps: Callable[[], object]) -> list[GpuState]:
    """Do that with one GPU."""
    return [state for (state,) in of_all(sampler, *steps)]


def quick(devices: str = "0") -> GpuSampler:
    """Make a sampler that pauses for no time, and whose readings stay fresh."""
    return GpuSampler(devices, interval=0.001, clock=lambda: 0.0)


def told(sampled: list[GpuState]) -> list[tuple[bool | None, bool]]:
    return [(state.up, state.lost) for state in sampled]
