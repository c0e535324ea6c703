"""A process that does not outlive the one that started it."""

import ctypes
import os
import signal
import sys
from typing import Final

PR_SET_PDEATHSIG: Final = 1
"""Of Linux's prctl.h."""


def follow(parent: int | None = None) -> None:
    """Let the kernel end this process when the thread that started it ends.

    ``parent`` is the process of that thread; where it is gone already, this one ends at once.
    Linux; elsewhere nothing happens. Children do not inherit it (prctl(2), PR_SET_PDEATHSIG).
    """
    if sys.platform != "linux":
        return
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if parent is not None and os.getppid() != parent:  # It ended before the kernel knew.
        os.kill(os.getpid(), signal.SIGKILL)
