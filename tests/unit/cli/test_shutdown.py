"""The end of a process: signals arrive, and no thread outlasts the deadline."""

import signal
import subprocess
import sys

import pytest

from service.cli.serving import shutdown

WAIT_SECONDS = 60.0

PROGRAM = """
import asyncio, os, signal, sys, threading, time
from concurrent.futures import ThreadPoolExecutor
from service.cli.serving import shutdown

shutdown.FORCED_SECONDS = 0.3
ending = shutdown.Ending(0.1)

def said(word):
    print(word, flush=True)

def hangs():
    time.sleep(1e6)

async def serve():
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    ending.serve(stop=lambda: (said("stop"), stop.set()), reload=lambda: said("reload"))
    {inside}
    said("serving")
    await stop.wait()
    ending.deadline.within({left}, 7)

with ending.heard():
    {before}
    asyncio.run(serve())
said("over")
"""


class Program:
    """A program that serves nothing, and what it says."""

    def __init__(self, *, before: str = "pass", inside: str = "pass", left: float = 60) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM.format(before=before, inside=inside, left=left)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def end(self) -> tuple[int, str]:
        """Wait for the end; return the exit code and what was said until then."""
        try:
            said, _ = self.process.communicate(timeout=WAIT_SECONDS)
        finally:
            self.process.kill()  # One that does not end by itself must not stay.
        return self.process.returncode, said.replace("\n", " ").strip()

    def forced(self) -> int:
        """Return the exit code of an end that was forced, as its last word says."""
        code, said = self.end()
        assert f"code={code} threads=['MainThread']" in said
        return code


def test_a_signal_stops_and_a_hang_up_reloads():
    """As often as they come."""
    program = Program()
    assert program.line() == "serving"
    for _ in range(2):
        program.process.send_signal(signal.SIGHUP)
        assert program.line() == "reload"
    program.process.terminate()
    assert program.end() == (0, "stop over")


@pytest.mark.parametrize(
    "inside",
    [
        "loop.run_in_executor(None, hangs)",
        "ThreadPoolExecutor(1).submit(hangs)",
        "threading.Thread(target=hangs).start()",
    ],
)
def test_threads_that_hang_keep_no_process_that_is_done(inside):
    """Python would wait for them without end; the exit code is that of the good end."""
    program = Program(inside=inside, left=0.1)
    assert program.line() == "serving"
    program.process.terminate()
    assert program.end()[0] == 7


def test_an_event_loop_that_hangs_keeps_no_process():
    """The signal is heard by another thread, and the deadline is kept; the code says so."""
    program = Program(inside="said('hangs'); hangs()")
    assert program.line() == "hangs"
    program.process.terminate()
    assert program.forced() == 1


def test_a_lock_of_the_log_keeps_no_process():
    """The last word is lost, the end is not."""
    program = Program(
        inside="import logging; logging.getLogger().addHandler(h := logging.StreamHandler());"
        "threading.Thread(target=lambda: h.acquire() and hangs()).start();"
        "h.lock._is_owned() or time.sleep(0.1); said('hangs'); hangs()"
    )
    assert program.line() == "hangs"
    program.process.terminate()
    assert program.end()[0] == 1


def test_a_second_signal_asks_again_and_sooner():
    """The deadline of the first is the longer one."""
    program = Program(inside="ending._seconds = 3600; said('hangs'); hangs()")
    assert program.line() == "hangs"
    program.process.send_signal(signal.SIGTERM)
    program.process.send_signal(signal.SIGINT)
    assert program.forced() == 1


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, -signal.SIGINT)])
def test_a_signal_before_anything_is_served_ends_it_at_once(number, code):
    """As any program."""
    program = Program(before="said('starting'); hangs()")
    assert program.line() == "starting"
    program.process.send_signal(number)
    assert program.end() == (code, "")


def test_a_start_that_hangs_in_a_disk_ends_all_the_same():
    """The main thread does not come to a handler then; the signal is not delivered to it."""
    program = Program(
        before="shutdown.LEFT_SECONDS = 0.1; "
        "[signal.signal(n, lambda *_: None) for n in (1, 2, 15)]; "
        "said('starting'); hangs()"
    )
    assert program.line() == "starting"
    program.process.terminate()
    assert program.forced() == 0


def test_a_hang_up_before_anything_is_served_is_ignored():
    """There is nothing yet to read again."""
    program = Program(before="os.kill(os.getpid(), signal.SIGHUP); time.sleep(0)")
    assert program.line() == "serving"
    program.process.terminate()
    assert program.end() == (0, "stop over")


def test_the_deadline_leaves_time_to_the_last_word():
    """All of it is within SHUTDOWN_TIMEOUT_SECONDS + 10 s."""
    assert shutdown.FORCED_SECONDS + shutdown.LAST_WORD_SECONDS < 10
