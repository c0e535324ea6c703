"""The priority of a process that others started."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import os, sys, threading
from service.system import niceness
os.nice(7)
begun, end = threading.Event(), threading.Event()
told = []
def work():
    begun.set()
    end.wait()
    told.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
thread = threading.Thread(target=work)
thread.start()
begun.wait()
before = os.getpriority(os.PRIO_PROCESS, 0)
own = niceness.reset()
end.set()
thread.join()
print(before, own, *told)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a priority for each thread")
def test_every_thread_gets_the_usual_priority_where_that_is_allowed():
    """Where it is not, all stays as it is."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], check=True, stdout=subprocess.PIPE, timeout=60
    )
    before, own, thread = map(int, done.stdout.split())
    may = os.geteuid() == 0
    assert (own, thread) == ((0, 0) if may else (before, before))
