"""What Ray writes to the standard streams of its driver, as lines of the log."""

import faulthandler
import logging
import os
import re
import sys
import threading
from typing import Final

import structlog

from service.config.table import Config
from service.telemetry import logs, stderr

log = structlog.get_logger(__name__)

COLOURS: Final = re.compile(r"\x1b\[[0-9;]*m")
LONGEST: Final = 1000


def capture(config: Config) -> stderr.Lines:
    """Send the log to standard error, and what else is written there or printed, to the log.

    Ray prints although it is told not to, and so do its libraries of C++. Returns the lines of the
    log, to end them before the process does.
    """
    original = os.dup(stderr.STDERR)
    lines = stderr.Lines(original)
    sys.stderr = stderr.Stream(lines, terminal=stderr.is_terminal())
    logs.configure(config)
    faulthandler.enable(original)
    reading, writing = os.pipe()
    for descriptor in (stderr.STDOUT, stderr.STDERR):
        os.dup2(writing, descriptor)
    sys.stdout = sys.stderr = os.fdopen(writing, "w", buffering=1, errors="backslashreplace")
    threading.Thread(target=_log, args=(reading,), name="ray-output", daemon=True).start()
    return lines


def _log(reading: int) -> None:
    with os.fdopen(reading, errors="replace") as said:
        for line in said:
            if text := COLOURS.sub("", line).strip():
                log.info("ray_said", line=text[:LONGEST])


def quiet() -> None:
    """Let Ray's logger, which has a handler of its own, log errors only, as everybody does."""
    ray = logging.getLogger("ray")
    ray.handlers.clear()
    ray.propagate = True
    ray.setLevel(logging.ERROR)
