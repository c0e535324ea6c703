"""The end of the service: signals that always arrive, and a deadline that no thread outlasts."""

import asyncio
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

import structlog

from service.cli.exits import Exit
from service.telemetry import stderr

log = structlog.get_logger(__name__)

FORCED_SECONDS: Final = 8.5
"""After SHUTDOWN_TIMEOUT_SECONDS: what is not over by then does not end by itself."""

LEFT_SECONDS: Final = 2.0
"""How long threads may take that are left when everything is in order, or before it began."""

LAST_WORD_SECONDS: Final = 1.2

HANG_UP: Final = getattr(signal, "SIGHUP", None)
SIGNALS: Final = tuple(
    number for number in (signal.SIGTERM, signal.SIGINT, HANG_UP) if number is not None
)


class Deadline:
    """Ends the process when its time is over, whatever the other threads do.

    Python waits at its end for every thread of an executor, without a bound: one that reads
    from a file system that hangs would keep the process for ever.
    """

    def __init__(self) -> None:
        self._due = float("inf")
        self._code = int(Exit.FAILED)
        self._changed = threading.Condition()
        self._over = threading.Event()
        self._said = threading.Event()

    def start(self) -> None:
        """Start its threads now: in an end of Python's own none can be started any more."""
        for target in (self._run, self._say):
            threading.Thread(target=target, name="deadline", daemon=True).start()

    def within(self, seconds: float, code: int) -> None:
        """End the process after so long, with this code; of several times the first counts."""
        with self._changed:
            due = time.monotonic() + seconds
            if due < self._due:
                self._due, self._code = due, int(code)
            self._changed.notify()

    def _run(self) -> None:
        with self._changed:
            while (left := self._due - time.monotonic()) > 0:
                self._changed.wait(min(left, threading.TIMEOUT_MAX))
        self._over.set()
        # Logging has locks, and whoever holds one may be what hangs: another thread logs.
        self._said.wait(LAST_WORD_SECONDS)
        try:
            for child in multiprocessing.active_children():
                child.kill()
        finally:
            os._exit(self._code)

    def _say(self) -> None:
        self._over.wait()
        names = [each.name for each in threading.enumerate() if not each.daemon]
        log.error("shutdown_forced", code=self._code, threads=names)
        stderr.finish()
        self._said.set()


class Ending:
    """Hears the signals of the service on a thread of its own.

    A handler of Python's runs in the main thread alone, and asyncio's in its event loop: they
    would not come to it while that waits for a disk. So signals are heard elsewhere, which
    sets the deadline, and tells the event loop.
    """

    def __init__(self, shutdown_seconds: float) -> None:
        self.deadline = Deadline()
        self._seconds = shutdown_seconds
        self._asked = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: Callable[[], None] = _nothing
        self._reload: Callable[[], None] = _nothing

    @contextmanager
    def heard(self) -> Iterator[None]:
        """Hear signals; before ``serve`` they end the process, and a hang-up is ignored."""
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        handlers = {number: signal.signal(number, self._in_main_thread) for number in SIGNALS}
        before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        self.deadline.start()
        hearing = threading.Thread(target=self._hear, args=(reading,), name="signals", daemon=True)
        hearing.start()
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            for number, handler in handlers.items():
                signal.signal(number, handler)
            os.close(writing)

    def serve(self, *, stop: Callable[[], None], reload: Callable[[], None]) -> None:
        """From now on call these on the running event loop: at every request to stop, or SIGHUP."""
        self._stop, self._reload = stop, reload
        self._loop = asyncio.get_running_loop()

    def begun(self) -> None:
        """Set the deadline of an end in good order."""
        self.deadline.within(self._seconds + FORCED_SECONDS, Exit.FAILED)

    def _in_main_thread(self, number: int, _frame: FrameType | None) -> None:
        if self._loop is None and number == signal.SIGTERM:
            sys.exit(0)  # Nothing is accepted yet.
        if self._loop is None and number == signal.SIGINT:
            raise KeyboardInterrupt

    def _hear(self, reading: int) -> None:
        while number := os.read(reading, 1):
            self._act(number[0])
        os.close(reading)

    def _act(self, number: int) -> None:
        if number != HANG_UP:
            self._set_deadline()
        if self._loop is not None:
            act = self._reload if number == HANG_UP else self._stop
            try:
                self._loop.call_soon_threadsafe(act)
            except RuntimeError:  # It is closed: the end is near.
                return

    def _set_deadline(self) -> None:
        if self._loop is None:
            self.deadline.within(LEFT_SECONDS, Exit.DONE)
        elif self._asked:  # Whoever asks twice does not wait for what is unfinished.
            self.deadline.within(FORCED_SECONDS, Exit.FAILED)
        else:
            self.begun()
        self._asked = True


def _nothing() -> None:
    """Do nothing."""
