"""A process that takes one task on its standard input and tells what it finds as lines of JSON.

Its standard input stays open as long as the process that started it lives. When it closes, the
process and all that it started are ended: a card is not left to work for nobody.
"""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import IO, Any, Final

import msgspec

POLL_SECONDS: Final = 0.02
KILLED: Final = "ended by signal 9, mostly the kernel's for lack of host memory"


def run(
    command: Sequence[str],
    task: object,
    environment: Mapping[str, str],
    *,
    seconds: float,
    log: IO[bytes],
    told: Callable[[bytes], object] = lambda _line: None,
    watch: Callable[[int], object] = lambda _pid: None,
) -> tuple[bytes, str]:
    """Let a process carry a task out; return its last line, and what went wrong, if anything.

    ``told`` gets the last line whenever there is more, ``watch`` the id of the process, many times
    a second. What the process says goes to ``log``. What is left of its group is killed.
    """
    begins = log.seek(0, os.SEEK_END)
    seen = 0
    with (
        tempfile.TemporaryFile() as answers,
        subprocess.Popen(  # noqa: S603 - our own modules
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=answers,
            stderr=log,
            start_new_session=True,
        ) as process,
    ):
        try:
            assert process.stdin is not None  # noqa: S101 - it is a pipe
            with suppress(BrokenPipeError):  # It has ended already; its exit code tells.
                process.stdin.write(msgspec.json.encode(task) + b"\n")
                process.stdin.flush()
            ends = time.monotonic() + seconds
            while process.poll() is None and time.monotonic() < ends:
                watch(process.pid)
                if (size := os.fstat(answers.fileno()).st_size) > seen:
                    seen = size
                    told(_last_line(answers, 0, whole=True))
                time.sleep(POLL_SECONDS)
            late = process.poll() is None
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        code = process.wait()
        last = _last_line(answers, 0, whole=True)
    if late:
        return last, f"cut off after {seconds:.1f} s"
    if code < 0:
        return last, KILLED if code == -signal.SIGKILL else f"ended by signal {-code}"
    if code:
        words = _last_line(log, begins).decode(errors="replace").strip()
        return last, f"exit code {code}: {words or 'without a word'}"
    return last, ""


def _last_line(file: IO[bytes], begins: int, *, whole: bool = False) -> bytes:
    """Return the last line of a file; ``pread`` leaves the place where the process writes."""
    text = os.pread(file.fileno(), os.fstat(file.fileno()).st_size, begins)
    if whole:  # The last one may be written by half.
        text = text.rpartition(b"\n")[0]
    return text.rstrip().rpartition(b"\n")[2]


def carry_out(work: Callable[[bytes, Callable[[Any], object]], object]) -> None:
    """In the process: call ``work`` with the task and what it tells its findings to."""
    answers = os.dup(1)
    os.dup2(2, 1)  # Whatever a library prints is no answer.
    task = sys.stdin.buffer.readline()
    threading.Thread(target=end_with_starter, daemon=True).start()

    def tell(found: Any) -> None:
        # torch's version is a text of a class of its own.
        os.write(answers, msgspec.json.encode(found, enc_hook=str) + b"\n")

    work(task, tell)


def end_with_starter() -> None:
    """End this process group as soon as standard input closes."""
    while os.read(0, 1):
        pass
    os.killpg(0, signal.SIGKILL)
