"""An event loop whose time is a number and whose threads are none."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any, Final, TypeVar

from service.jobs import job
from service.jobs.dispatch import admission, dispatcher, feed, residency, switches
from service.jobs.durable import live_job, recorder
from service.jobs.queue import forecast

T = TypeVar("T")

EPOCH: Final = 1.8e9
TIMED: Final = (
    *(admission, dispatcher, feed, residency, switches),
    *(job, live_job, recorder, forecast),
)
"""Modules that live in virtual time."""


def keep_time(loop: "VirtualLoop") -> None:
    """Let the service's jobs live in the time of ``loop``, until ``restore_time``."""
    clock = SimpleNamespace(
        monotonic=loop.time, time=lambda: EPOCH + loop.now, time_ns=time.time_ns
    )
    for module in TIMED:
        module.time = clock  # type: ignore[attr-defined]


def restore_time() -> None:
    """Give the modules their clock back."""
    for module in TIMED:
        module.time = time  # type: ignore[attr-defined]


class VirtualLoop(asyncio.SelectorEventLoop):
    """Runs until nothing can happen any more, and then waits for ``advance``.

    Work for threads is done at once, on the loop: every run is the same as the one before.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.passing: Callable[[float], None] = lambda _seconds: None
        """Called with the seconds that are about to pass, in which nothing happens."""

    def time(self) -> float:
        """Return the virtual time."""
        return self.now

    def run_in_executor(  # type: ignore[override]
        self, executor: object, func: Callable[..., T], *args: Any
    ) -> "asyncio.Future[T]":
        """Do the work now; its caller goes on later, as it would."""
        del executor
        done: asyncio.Future[T] = self.create_future()
        try:
            done.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 - it is the caller's
            done.set_exception(error)
        return done

    def once(self) -> None:
        """Do what can be done, but not what follows from it."""
        self.call_soon(self.stop)
        self.run_forever()

    @property
    def _due(self) -> bool:
        scheduled = self._scheduled  # type: ignore[attr-defined]
        return bool(scheduled) and scheduled[0].when() <= self.now

    def settle(self) -> None:
        """Go on until only time can change anything."""
        while self._ready or self._due:  # type: ignore[attr-defined]
            self.once()

    def advance(self, seconds: float) -> None:
        """Let time pass, from one timer to the next."""
        end = self.now + seconds
        self.settle()
        # A cancelled timer is gone once its time has come: nothing happens then.
        while (timers := self._scheduled) and timers[0].when() <= end:  # type: ignore[attr-defined]
            self._pass(timers[0].when())
            self.settle()
        self._pass(end)
        self.settle()

    def _pass(self, until: float) -> None:
        if until > self.now:
            self.passing(until - self.now)
            self.now = until

    def begin(self, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        """Start something."""
        return self.create_task(work)

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Do something that needs no time, and all that follows from it."""
        task = self.begin(work)
        self.settle()
        assert task.done(), f"{work} waits for something that does not come"
        return task.result()

    def call(self, function: Callable[[], T]) -> T:
        """Call what wants a running loop, and let all that follows from it happen."""

        async def called() -> T:
            return function()

        return self.do(called())

    def end(self) -> None:
        """Cancel what is left, and close."""
        while tasks := asyncio.all_tasks(self):
            for task in tasks:
                task.cancel()
            self.settle()
        self.run_until_complete(self.shutdown_asyncgens())
        self.close()
