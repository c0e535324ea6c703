"""Standard error behind a bounded queue: whoever writes a line never waits for a reader.

A pipe that nobody reads takes 64 KiB and then blocks its writer, and a terminal does so from
Ctrl-S on. ``queued`` puts a queue and a thread in front of the service's standard error;
``inherited`` does the same in the engine, whose descriptor is then the service's own pipe.
"""

import io
import os
import queue
import select
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final, TextIO

import structlog

log = structlog.get_logger(__name__)

MOST_BYTES: Final = 1 << 20
"""Of lines that wait; some three thousand."""

LAST_SECONDS: Final = 1.0
"""How long an exit waits for the lines that are left."""

PART_SECONDS: Final = 0.1
"""A line without its end, such as a progress bar, is passed on after so much silence."""

LONGEST_PART: Final = 65_536
STDOUT, STDERR = 1, 2


class Lines:
    """Lines on their way to a descriptor, which a thread of their own writes to.

    What does not fit into the queue, or cannot be written, is dropped and counted; as soon as
    lines pass again, ``announce`` is called with the number of those that did not.
    """

    def __init__(
        self,
        descriptor: int,
        *,
        most_bytes: int = MOST_BYTES,
        announce: Callable[[int], object] | None = None,
    ) -> None:
        self._descriptor = descriptor
        self._most = most_bytes
        self._announce = announce or _announce
        self._queue: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        # Reentrant: a finalizer that logs may run inside of ``put``.
        self._lock = threading.RLock()
        self._entered = 0
        """Bytes that came in, ever; the thread alone counts those that left."""
        self._left = 0
        self._refused = 0
        self._unwritten = 0
        self._announced = 0
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Lines that were never written, and never will be."""
        return self._refused + self._unwritten

    def put(self, line: bytes) -> None:
        """Hand over a line; it never waits."""
        with self._lock:
            if self._entered - self._left + len(line) > self._most:
                self._refused += 1
                return
            self._entered += len(line)
        self._queue.put(line)

    def end(self, seconds: float = LAST_SECONDS) -> bool:
        """Wait a moment for what is left to be written; return whether it was."""
        if self.dropped > self._announced and self._thread.is_alive():
            self._tell()
        self._queue.put(None)
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (line := self._queue.get()) is not None:
            written = self._write(line)
            self._left += len(line)
            if not written:
                self._unwritten += 1
            elif self.dropped > self._announced and self._queue.empty():
                self._tell()

    def _tell(self) -> None:
        new, self._announced = self.dropped - self._announced, self.dropped
        self._announce(new)

    def _write(self, line: bytes) -> bool:
        """Write a line, however long that takes; return whether it could be."""
        while line:
            try:
                line = line[os.write(self._descriptor, line) :]
            except BlockingIOError:  # Whoever shares it made it so.
                waiting = select.poll()
                waiting.register(self._descriptor, select.POLLOUT)
                waiting.poll()
            except OSError:  # The reader died, the terminal was closed, the disk is full.
                return False
        return True


class Stream(io.TextIOBase):
    """What ``sys.stderr`` is while its lines are queued."""

    encoding = "utf-8"
    errors = "backslashreplace"

    def __init__(self, lines: Lines, *, terminal: bool = False) -> None:
        self.lines = lines
        self._terminal = terminal

    def write(self, text: str) -> int:
        """Hand over text as it is: a line, or a part of one."""
        if text:
            self.lines.put(text.encode(self.encoding, self.errors))
        return len(text)

    def writable(self) -> bool:
        """Return that it takes text."""
        return True

    def isatty(self) -> bool:
        """Return whether the lines end on a terminal."""
        return self._terminal

    def fileno(self) -> int:
        """Return where libraries of C write to; it does not block either."""
        return STDERR


@contextmanager
def queued() -> Iterator[None]:
    """Queue all that this process and its children write to standard error.

    The descriptor becomes a pipe that does not block, for what libraries of C write; what it
    takes is queued, too. At the end the descriptor is as it was, unless lines are stuck in it.
    A program that put another stream in the place of standard error keeps that.
    """
    if os.name == "nt" or not _is_descriptor(sys.stderr):  # Windows cannot poll a pipe.
        yield
        return
    before, terminal = sys.stderr, os.isatty(STDERR)
    original = os.dup(STDERR)
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)
    os.dup2(writing, STDERR)
    os.close(writing)
    lines = Lines(original)
    stop, stopped = os.pipe()
    forwarding = threading.Thread(
        target=_forward, args=(reading, stop, lines), name="log-reader", daemon=True
    )
    forwarding.start()
    sys.stderr = Stream(lines, terminal=terminal)
    try:
        yield
    finally:
        os.close(stopped)
        forwarding.join(LAST_SECONDS)
        if lines.end():
            os.dup2(original, STDERR)
            sys.stderr = before
            for descriptor in (original, reading, stop):
                os.close(descriptor)


@contextmanager
def inherited(*, terminal: bool) -> Iterator[None]:
    """Queue what the engine's process says; what it prints is a part of the log, too."""
    before = sys.stderr, sys.stdout
    os.dup2(STDERR, STDOUT)
    lines = Lines(STDERR)
    sys.stderr = sys.stdout = Stream(lines, terminal=terminal)
    try:
        yield
    finally:
        lines.end()
        sys.stderr, sys.stdout = before


def finish() -> None:
    """Give the lines of this process a last moment, before it ends at once."""
    if isinstance(sys.stderr, Stream):
        sys.stderr.lines.end()


def is_terminal() -> bool:
    """Return whether what this process writes to standard error ends on a terminal."""
    return sys.stderr is not None and sys.stderr.isatty()


def dropped() -> int:
    """Return how many lines of this process's standard error were dropped."""
    return sys.stderr.lines.dropped if isinstance(sys.stderr, Stream) else 0


def _announce(count: int) -> None:
    if structlog.is_configured():  # Before, it would print to standard output.
        log.warning("log_lines_dropped", lines=count)


def _is_descriptor(stream: TextIO | None) -> bool:
    try:
        return stream is not None and stream.fileno() == STDERR
    except (OSError, ValueError):  # It is no file, or closed.
        return False


def _forward(reading: int, stop: int, lines: Lines) -> None:
    """Queue what comes out of a pipe, by the line, until ``stop`` is closed and it is empty."""
    ready = select.poll()
    ready.register(reading, select.POLLIN)
    ready.register(stop, 0)
    part, ending = b"", False
    while not ending:
        found = ready.poll(1000 * PART_SECONDS if part else None)
        ending = any(descriptor == stop for descriptor, _ in found)
        if not found:
            lines.put(part)
            part = b""
        with suppress(BlockingIOError):
            while data := os.read(reading, LONGEST_PART):
                part = _queue_whole(part + data, lines)
            ending = True  # Nobody can write to it any more.
    if part:
        lines.put(part)


def _queue_whole(data: bytes, lines: Lines) -> bytes:
    """Queue each line, and each state of a progress bar; return the part that is left."""
    end = max(data.rfind(b"\n"), data.rfind(b"\r")) + 1
    for line in data[:end].splitlines(keepends=True):
        lines.put(line)
    if len(data) - end <= LONGEST_PART:
        return data[end:]
    lines.put(data[end:])
    return b""
