"""Lines for whoever typed the command, and the exit codes that go with them."""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

STDIN, STDOUT, STDERR = 0, 1, 2


def open_closed() -> None:
    """Open the standard streams that are closed on /dev/null.

    Else the next files and sockets get their numbers, and what is printed goes there. Nothing
    can be written to standard output then: a command whose result is lost must say so.
    """
    for number, mode in ((STDIN, os.O_RDONLY), (STDOUT, os.O_RDONLY), (STDERR, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.dup2(os.open(os.devnull, mode), number)  # The lowest free number is this one.
            os.set_inheritable(number, True)
    if sys.stdin is None:
        sys.stdin = os.fdopen(STDIN, closefd=False)
    if sys.stdout is None:
        sys.stdout = os.fdopen(STDOUT, "w", closefd=False)
    if sys.stderr is None:
        sys.stderr = os.fdopen(STDERR, "w", closefd=False)


class _Forgiving(io.TextIOBase):
    """Standard error that nothing fails for: its reader may have seen enough."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError):
            self._stream.write(text)
            self._stream.flush()
        return len(text)

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()


@contextmanager
def forgiving() -> Iterator[None]:
    """Let a command do its work, whether what it says about it can be written or not."""
    before = sys.stderr
    sys.stderr = _Forgiving(before)
    try:
        yield
    finally:
        sys.stderr = before


def show(text: str) -> int:
    """Print a command's result; return 0, or 1 when it cannot be written.

    A reader that has seen enough, as in ``sd-api models | head -1``, is no failure.
    """
    try:
        print(text, flush=True)  # noqa: T201
    except BrokenPipeError:
        _discard_output()
    except OSError as error:
        _discard_output()
        return print_error(f"the output cannot be written ({error.strerror}).")
    return 0


def print_error(text: str) -> int:
    """Print one line about what went wrong; return 1, the exit code of a failure."""
    # One line whatever is in it: names of files and models come from others.
    line = "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)
    print(f"sd-api: {line}", file=sys.stderr)  # noqa: T201
    return 1


def _discard_output() -> None:
    # What is still in the buffer is written once more when Python ends, and would fail again.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
