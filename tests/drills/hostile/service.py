"""The service around a fake engine, where names below ``.example`` are never answered.

``python -m tests.drills.hostile.service serve``
"""

import socket
import sys
import time
from typing import Any, Final

from service import __main__
from service.cli import preflight
from service.config.table import Config
from service.engine.process import parent
from tests.support.simulation.fake_engine import FakeEngine

STEP_SECONDS: Final = 0.05
SILENT: Final = ".example"  # Reserved for examples (RFC 2606): no real name server is asked.
LOOKUP_SECONDS: Final = 30.0
"""Three name servers asked twice, 5 s each: the longest that glibc's resolver waits."""

known = socket.getaddrinfo


def unanswered(host: Any, *arguments: Any, **more: Any) -> Any:
    """Look a name up; below ``.example`` wait as long as a resolver waits, and fail like one."""
    if str(host).rstrip(".").endswith(SILENT):
        time.sleep(LOOKUP_SECONDS)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
    return known(host, *arguments, **more)


def engine(_config: Config) -> FakeEngine:
    """Take the place of the engine's process."""
    return FakeEngine(step_seconds=STEP_SECONDS)


if __name__ == "__main__":
    socket.getaddrinfo = unanswered
    parent.ProcessEngine = engine  # type: ignore[assignment, misc]
    preflight.demand_packages = lambda: None  # The fake engine needs none of them.
    sys.exit(__main__.main())
