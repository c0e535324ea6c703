"""What Ray prints into its driver, as lines of the log."""

import io
import logging
import re
import sys
from typing import Final

import structlog

log = structlog.get_logger(__name__)

COLOURS: Final = re.compile(r"\x1b\[[0-9;]*m")
LONGEST: Final = 1000


class LoggedLines(io.TextIOBase):
    """A stream whose lines are log entries; a part of a line waits for its end."""

    def __init__(self) -> None:
        super().__init__()
        self._part = ""

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, text: str) -> int:
        """Log the lines that end in this text."""
        *lines, self._part = (self._part + text).split("\n")
        self._part = self._part[-LONGEST:]
        for line in lines:
            if said := COLOURS.sub("", line).strip():
                log.info("ray_said", line=said[:LONGEST])
        return len(text)


def capture() -> None:
    """Log what Ray prints from here on; whoever logs to standard error already, goes on.

    Ray prints to the streams of Python although it is told not to, and has a handler of its own
    for its logger.
    """
    sys.stdout = sys.stderr = LoggedLines()
    ray = logging.getLogger("ray")
    ray.handlers.clear()
    ray.propagate = True
    ray.setLevel(logging.ERROR)
