"""Log of connections that are not accepted because the system has no socket for them."""

import asyncio
from typing import Any, Final

import structlog

log = structlog.get_logger(__name__)

SHORTAGE: Final = "socket.accept() out of system resource"
"""Message of asyncio, which comes with a traceback for every place of its backlog."""

EVERY_SECONDS: Final = 1.0
"""Time after which asyncio tries again."""


class Shortages:
    """Logs each shortage of one event loop once, and leaves other errors to the loop."""

    def __init__(self) -> None:
        self._logged_at = float("-inf")

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Handle an error of a callback of the loop, as ``set_exception_handler`` wants it."""
        if context.get("message") != SHORTAGE:
            loop.default_exception_handler(context)
        elif loop.time() - self._logged_at >= EVERY_SECONDS:
            self._logged_at = loop.time()
            log.error(
                "accept_failed",
                reason=str(context.get("exception")),
                cure="raise the limit of open files (ulimit -n, LimitNOFILE), or lower "
                "MAX_CONNECTIONS",
            )
