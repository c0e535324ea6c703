"""The priority that the machine's other programs started a process with."""

import contextlib
import os
import sys
from pathlib import Path
from typing import Final

THREADS: Final = Path("/proc/self/task")


def reset() -> int:
    """Give every thread of this process the usual priority where that is allowed; return its own.

    Linux keeps one for each thread, which begins with that of the thread that starts it.
    """
    if sys.platform == "linux":
        for thread in THREADS.iterdir():
            # Only root and CAP_SYS_NICE may; a thread may have ended, too.
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, int(thread.name), 0)
    return os.getpriority(os.PRIO_PROCESS, 0)
