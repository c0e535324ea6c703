"""Processes that end with the one that started them (Linux)."""

import signal
import subprocess
import sys
import time

import psutil
import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has PR_SET_PDEATHSIG")

WAIT_SECONDS = 30.0
FOLLOWER = """
import os, signal, sys
from service.system import parent_death
parent_death.follow(int(sys.argv[1]) or None)
print(os.getpid(), flush=True)
signal.pause()
"""
PARENT = f"""
import signal, subprocess, sys, os
subprocess.Popen([sys.executable, "-c", {FOLLOWER!r}, str(os.getpid())])
signal.pause()
"""


def test_a_process_ends_with_the_one_that_started_it():
    """However that one ends, and whatever this one is doing."""
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        follower = psutil.Process(int(parent.stdout.readline()))
        parent.send_signal(signal.SIGKILL)
        # Where nobody reaps orphans, one that has ended stays as a zombie.
        until = time.monotonic() + WAIT_SECONDS
        while follower.is_running() and follower.status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < until, "it lives on"


def test_a_process_whose_parent_was_gone_before_ends_at_once():
    """It cannot be told by the kernel any more."""
    command = [sys.executable, "-c", FOLLOWER, "1"]
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, timeout=WAIT_SECONDS)
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, b"")
