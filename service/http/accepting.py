"""What is said when no connection can be taken because the system gives no socket for it."""

import asyncio
from typing import Any, Final

import structlog

log = structlog.get_logger(__name__)

SHORTAGE: Final = "socket.accept() out of system resource"
"""How asyncio begins to say it, with a traceback for every place of its backlog."""

EVERY_SECONDS: Final = 1.0
"""As often as asyncio tries again."""


class Shortages:
    """Tells the shortages of one event loop, each once, and leaves the rest to the loop."""

    def __init__(self) -> None:
        self._told_at = float("-inf")

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Handle what a callback of the loop raised, as ``set_exception_handler`` wants it."""
        if context.get("message") != SHORTAGE:
            loop.default_exception_handler(context)
        elif loop.time() - self._told_at >= EVERY_SECONDS:
            self._told_at = loop.time()
            log.error(
                "accept_failed",
                reason=str(context.get("exception")),
                cure="raise the limit of open files (ulimit -n, LimitNOFILE), or lower "
                "MAX_CONNECTIONS",
            )
